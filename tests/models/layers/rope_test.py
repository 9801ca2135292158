"""Frequencies against transformers', and against their formulas."""

import numpy as np
import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from isara_jax.models.layers.rope import RopeScaling, rotary_frequencies


def of_llama3(*, factor=8.0, low=1.0, high=4.0, original_context=8192):
    return RopeScaling(
        kind="llama3",
        factor=factor,
        low=low,
        high=high,
        original_context=original_context,
    )


SCALINGS = {
    "linear": RopeScaling(kind="linear", factor=4.0),
    "Llama 3.1": of_llama3(),
    "Llama 3.2": of_llama3(factor=32.0),
    "other bounds": of_llama3(low=2.0, high=3.0, original_context=64),
}


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize(("head_size", "base"), [(8, 1e4), (64, 5e5), (128, 5e5)])
def test_frequencies_are_those_of_transformers(name, head_size, base):
    scaling = SCALINGS[name]
    parameters = {
        "rope_type": scaling.kind,
        "rope_theta": base,
        "factor": scaling.factor,
    }
    if scaling.kind == "llama3":
        parameters |= {
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.original_context,
        }
    config = transformers.LlamaConfig(
        hidden_size=2 * head_size, num_attention_heads=2, rope_parameters=parameters
    )
    theirs, attention_factor = ROPE_INIT_FUNCTIONS[scaling.kind](config, "cpu")
    assert attention_factor == 1
    ours = rotary_frequencies(head_size, base=base, scaling=scaling)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)


def test_plain_frequencies_are_their_formula():
    expected = 10_000.0 ** (-np.arange(0, 64, 2) / 64)
    got = rotary_frequencies(64, base=10_000.0, scaling=None)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_llama3_keeps_the_fast_and_lowers_the_slow_ones():
    plain = rotary_frequencies(128, base=5e5, scaling=None)
    share = rotary_frequencies(128, base=5e5, scaling=of_llama3()) / plain
    np.testing.assert_array_equal(share[2 * np.pi / plain < 8192 / 4], 1)
    np.testing.assert_allclose(share[2 * np.pi / plain > 8192], 1 / 8, rtol=1e-6)
    assert (np.diff(share) <= 1e-6).all() and len(np.unique(share.round(3))) > 3
