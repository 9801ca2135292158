"""A layer's parts against plain arithmetic in fp64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from isara_jax.models.layers import (
    QUERY_CHUNK,
    attention,
    attention_from,
    causal_attention,
    layer_norm,
    rms_norm,
    rotary_angles,
    rotate,
)


def drawn(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def plain_attention(q, k, v, visible):
    """Query head n reads KV head n // (N / K), position by position."""
    q, k, v = (np.asarray(array, np.float64) for array in (q, k, v))
    rows, length, heads, size = q.shape
    group = heads // k.shape[1]
    mixed = np.zeros_like(q)
    for b, t, n in np.ndindex(rows, length, heads):
        seen = np.flatnonzero(visible[b, t])
        scores = k[b, n // group, seen] @ q[b, t, n] / np.sqrt(size)
        weights = np.exp(scores - scores.max())
        mixed[b, t, n] = weights @ v[b, n // group, seen] / weights.sum()
    return mixed


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


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_its_formula(kv_heads):
    q = drawn(2, 5, 4, 8)
    k, v = drawn(2, kv_heads, 7, 8, seed=1), drawn(2, kv_heads, 7, 8, seed=2)
    visible = np.random.default_rng(3).random((2, 5, 7)) < 0.5
    visible[:, :, 3] = True
    got = attention(q, k, v, visible=jnp.asarray(visible))
    np.testing.assert_allclose(got, plain_attention(q, k, v, visible), atol=1e-5)


def test_what_is_hidden_has_no_weight_at_all():
    q, k, v = drawn(1, 3, 2, 4), drawn(1, 2, 6, 4), drawn(1, 2, 6, 4, seed=1)
    visible = jnp.broadcast_to(jnp.arange(6) < 4, (1, 3, 6))
    other = v.at[:, :, 4:].set(1e30)
    np.testing.assert_array_equal(
        attention(q, k, v, visible=visible), attention(q, k, other, visible=visible)
    )


@pytest.mark.parametrize("length", [1, 127, 128, 129, 300])
def test_chunks_of_queries_change_nothing(length):
    q = drawn(2, length, 2, 4)
    k, v = drawn(2, 1, length, 4, seed=1), drawn(2, 1, length, 4, seed=2)
    segments = np.random.default_rng(3).integers(0, 3, (2, length))
    at = np.arange(length)
    visible = at[:, None] >= at[None, :]
    visible = visible & (segments[:, :, None] == segments[:, None, :])
    got = jax.jit(causal_attention)(q, k, v, segments=jnp.asarray(segments))
    whole = attention(q, k, v, visible=jnp.asarray(visible))
    assert QUERY_CHUNK == 128, "the lengths above lie around it"
    np.testing.assert_allclose(got, whole, atol=1e-6)


@pytest.mark.parametrize("window", [1, 5, 128, 300])
def test_a_window_shows_the_last_so_many(window):
    length = 200
    q = drawn(2, length, 2, 4)
    k, v = drawn(2, 1, length, 4, seed=1), drawn(2, 1, length, 4, seed=2)
    back = np.arange(length)[:, None] - np.arange(length)[None, :]
    visible = np.broadcast_to((back >= 0) & (back < window), (2, length, length))
    got = causal_attention(q, k, v, segments=jnp.ones((2, length), int), window=window)
    whole = attention(q, k, v, visible=jnp.asarray(visible))
    np.testing.assert_allclose(got, whole, atol=1e-6)
    if window == 1:
        np.testing.assert_allclose(got[:, :, 0], v[:, 0], atol=1e-6)


def test_bf16_stays_bf16_and_near():
    arrays = (
        drawn(1, 40, 4, 8),
        drawn(1, 2, 40, 8, seed=1),
        drawn(1, 2, 40, 8, seed=2),
    )
    segments = jnp.ones((1, 40), jnp.int32)
    wide = causal_attention(*arrays, segments=segments)
    narrow = causal_attention(
        *(array.astype(jnp.bfloat16) for array in arrays), segments=segments
    )
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=0.03)


@pytest.mark.parametrize("window", [None, 5, 300])
@pytest.mark.parametrize("start", [0, 3, 255, 256, 500])
def test_a_text_that_goes_on_attends_to_all_before(start, window):
    q = drawn(1, 20, 6, 8)
    keys, values = (drawn(1, 2, 768, 8, seed=seed) for seed in (1, 2))
    positions = start + jnp.arange(20)[None, :, None]
    columns = jnp.arange(768)
    visible = columns <= positions
    if window:
        visible &= columns > positions - window
    found = attention_from(
        q, keys.swapaxes(2, 3), values, start=jnp.int32(start), window=window
    )
    expected = attention(q, keys, values, visible=visible)
    np.testing.assert_allclose(found, expected, atol=1e-5)
