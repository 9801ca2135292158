"""A layer's parts against plain arithmetic in fp64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from isara_jax.models.layers.norm import layer_norm, rms_norm
from isara_jax.models.layers.rope import rotary_angles, rotate


def drawn(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def test_rms_norm_is_its_formula():
    x, scale = 3 * drawn(2, 5, 8), drawn(8, seed=1)
    wide = np.asarray(x, np.float64)
    root = np.sqrt((wide**2).mean(-1, keepdims=True) + 0.1)
    got = rms_norm(x, scale, epsilon=0.1)
    np.testing.assert_allclose(got, wide / root * np.asarray(scale), rtol=1e-5)


def test_rms_norm_of_bf16_rounds_once():
    x = drawn(2, 5, 64, dtype=jnp.bfloat16)
    wide = np.asarray(x, np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5)
    got = rms_norm(x, jnp.ones(64, jnp.bfloat16), epsilon=1e-5)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, expected.astype(jnp.bfloat16))


def test_layer_norm_is_torch_s():
    x, scale, bias = 3 * drawn(2, 5, 8) + 1, drawn(8, seed=1), drawn(8, seed=2)
    theirs = torch.nn.functional.layer_norm(
        torch.tensor(np.array(x)),
        (8,),
        weight=torch.tensor(np.array(scale)),
        bias=torch.tensor(np.array(bias)),
        eps=0.1,
    )
    got = layer_norm(x, scale, bias, epsilon=0.1)
    np.testing.assert_allclose(got, theirs.numpy(), atol=1e-5)


def test_layer_norm_of_bf16_is_taken_in_fp32():
    x = jnp.concatenate([jnp.zeros(2048), jnp.full(2048, 2.0)])[None, None]
    ones, zeros = jnp.ones(4096, jnp.bfloat16), jnp.zeros(4096, jnp.bfloat16)
    normed = layer_norm(x.astype(jnp.bfloat16), ones, zeros, epsilon=0.0)
    assert normed.dtype == jnp.bfloat16
    np.testing.assert_array_equal(jnp.abs(normed).astype(jnp.float32), 1)


@pytest.mark.parametrize(("base", "head_size"), [(10_000.0, 8), (100_000.0, 64)])
def test_angles_are_the_reference_s_at_far_positions_too(base, head_size):
    positions = np.array([[0, 1, 17, 500, 2_047, 8_191]])
    config = transformers.LlamaConfig(
        hidden_size=2 * head_size,
        num_attention_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    embedding = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    theirs = embedding(torch.zeros(1), torch.tensor(positions))
    angles = jax.jit(rotary_angles, static_argnames=("head_size", "base"))
    ours = angles(jnp.asarray(positions), head_size=head_size, base=base)
    for one, other in zip(ours, theirs, strict=True):
        half = other.numpy()[..., : head_size // 2]
        # One rounding of a frequency is worth 5e-4 at position 8191.
        np.testing.assert_allclose(one, half, atol=1e-3)
        np.testing.assert_allclose(one[:, :4], half[:, :4], atol=4e-5)


def test_jit_changes_no_angle():
    positions = jnp.arange(0, 8192, 7)[None]
    compiled = jax.jit(rotary_angles, static_argnames=("head_size", "base"))
    plain = rotary_angles(positions, head_size=16, base=1e5)
    np.testing.assert_allclose(
        plain, compiled(positions, head_size=16, base=1e5), atol=1e-6
    )


def test_rotation_leaves_what_depends_on_the_distance():
    q, k = drawn(1, 1, 1, 8), drawn(1, 1, 1, 8, seed=1)

    def product(at, other):
        turned = [
            rotate(x, *rotary_angles(jnp.array([[p]]), head_size=8, base=100.0))
            for x, p in ((q, at), (k, other))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert product(9, 4) == pytest.approx(product(25, 20), abs=1e-5)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-2)
    assert product(3, 3) == pytest.approx(float(jnp.sum(q * k)), abs=1e-5)
