import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isara_jax.models.layers.score_head import ScoreHead, score_labels, score_parameters


@pytest.mark.parametrize("bias", [True, False])
def test_scores_are_a_linear_map(bias):
    head = ScoreHead(labels=3, bias=bias, name="score")
    weight, offset = score_parameters(
        head, width=5, key=jax.random.key(0), dtype=jnp.float32
    )
    assert weight.get_metadata()["axes"] == ("labels", "embed")
    assert (offset is not None) == bias
    if bias:
        offset = offset.replace(jnp.arange(3.0))
    hidden = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    expected = hidden @ np.asarray(weight[...]).T + (np.arange(3.0) if bias else 0)
    scores = score_labels(jnp.asarray(hidden), weight, offset)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_scores_of_bf16_are_summed_in_fp32():
    # In bf16 a sum of 4096 ones stops at 256.
    head = ScoreHead(labels=1, bias=True, name="score")
    weight, offset = score_parameters(
        head, width=4096, key=jax.random.key(0), dtype=jnp.bfloat16
    )
    weight = weight.replace(jnp.ones_like(weight[...]))
    scores = score_labels(jnp.ones((1, 4096), jnp.bfloat16), weight, offset)
    assert scores.dtype == jnp.float32
    assert float(scores[0, 0]) == 4096
