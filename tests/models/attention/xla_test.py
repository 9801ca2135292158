"""The plain form of attention against its formula in fp64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isara_jax.models.attention.xla import (
    QUERY_CHUNK,
    KVSegment,
    attention,
    attention_with_lse,
    blockwise_attention,
    merge_segments,
    segmented_attention,
    xla_causal_attention,
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
    got = jax.jit(xla_causal_attention)(q, k, v, segments=jnp.asarray(segments))
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
    got = xla_causal_attention(
        q, k, v, segments=jnp.ones((2, length), int), window=window
    )
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
    wide = xla_causal_attention(*arrays, segments=segments)
    narrow = xla_causal_attention(
        *(array.astype(jnp.bfloat16) for array in arrays), segments=segments
    )
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=0.03)


def in_pieces(cut):
    q, k, v = drawn(2, 3, 4, 8), drawn(2, 2, 9, 8, seed=1), drawn(2, 2, 9, 8, seed=2)
    # What all rows share is kept once.
    k, v = (array.at[1, :, :cut].set(array[0, :, :cut]) for array in (k, v))
    visible = np.random.default_rng(3).random((2, 3, 9)) < 0.6
    visible[:, :, cut] = True
    visible[0, 1, :cut] = False
    visible = jnp.asarray(visible)
    kv_segments = [
        KVSegment(k[:1, :, :cut], v[:1, :, :cut], visible[..., :cut]),
        KVSegment(k[:, :, cut:], v[:, :, cut:], visible[..., cut:]),
    ]
    return q, kv_segments, attention(q, k, v, visible=visible)


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_pieces_are_attended_to_as_one(cut):
    q, kv_segments, whole = in_pieces(cut)
    np.testing.assert_allclose(segmented_attention(q, kv_segments), whole, atol=1e-6)
    parts = [attention_with_lse(q, kv_segment) for kv_segment in kv_segments]
    np.testing.assert_allclose(merge_segments(parts), whole, atol=1e-6)


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
    found = blockwise_attention(
        q, keys.swapaxes(2, 3), values, start=jnp.int32(start), window=window
    )
    expected = attention(q, keys, values, visible=visible)
    np.testing.assert_allclose(found, expected, atol=1e-5)
