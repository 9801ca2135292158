"""The layout of the KV cache for NVIDIA; its attention is in cache_test.py."""

import jax.numpy as jnp
import pytest
from tiny_llama import TINY

from isara_jax.engine.kv_cache.flash import MIN_KV_LEN, FlashKVCache
from isara_jax.models.attention.dispatch import AttentionBackend
from isara_jax.models.attention.nvidia import padded_kv_len


def flash_cache(max_len):
    return FlashKVCache.empty(
        TINY,
        layers=(1,),
        rows=2,
        max_len=max_len,
        max_shared_len=0,
        dtype=jnp.dtype(jnp.bfloat16),
        backend=AttentionBackend("nvidia"),
    )


def test_keys_and_values_lie_alike_in_what_the_kernel_splits():
    cache = flash_cache(5000)
    assert cache.keys[0].shape == cache.values[0].shape
    assert cache.max_len == padded_kv_len(5000) >= 5000


@pytest.mark.parametrize(
    ("end", "kv_len"),
    [
        (1, MIN_KV_LEN),
        (MIN_KV_LEN, MIN_KV_LEN),
        (MIN_KV_LEN + 1, 2 * MIN_KV_LEN),
        (4 * MIN_KV_LEN, 4 * MIN_KV_LEN),
    ],
)
def test_a_chunk_reads_a_power_of_two_of_positions(end, kv_len):
    assert flash_cache(8 * MIN_KV_LEN).kv_len(end) == kv_len


def test_a_chunk_reads_no_more_than_there_are():
    cache = flash_cache(MIN_KV_LEN + 100)
    assert cache.kv_len(MIN_KV_LEN + 100) == cache.max_len < 2 * MIN_KV_LEN
