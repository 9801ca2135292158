"""The layout of the KV cache for XLA; its attention is in cache_test.py."""

import jax.numpy as jnp
from tiny_llama import TINY

from isara_jax.engine.kv_cache.xla import XlaKVCache
from isara_jax.models.attention.dispatch import XLA


def test_keys_lie_with_their_positions_last_and_a_row_is_as_long_as_asked():
    cache = XlaKVCache.empty(
        TINY,
        layers=(2,),
        rows=3,
        max_len=33,
        max_shared_len=5,
        dtype=jnp.dtype(jnp.float32),
        backend=XLA,
    )
    heads, size = TINY.kv_heads, TINY.head_size
    assert cache.keys[0].shape == (2, 3, heads, size, 33)
    assert cache.values[0].shape == (2, 3, heads, 33, size)
    assert cache.shared_keys[0].shape == (2, 1, heads, size, 5)
    assert (cache.max_len, cache.max_shared_len) == (33, 5)
    # One program for a chunk at any place.
    assert {cache.kv_len(end) for end in (1, 20, 33)} == {33}
