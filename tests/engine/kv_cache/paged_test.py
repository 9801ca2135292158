"""The pages of the KV cache for TPU; its attention is in cache_test.py."""

import jax.numpy as jnp
import numpy as np
from tiny_llama import TINY

from isara_jax.engine.kv_cache.paged import PagedKVCache
from isara_jax.models.attention.dispatch import AttentionBackend
from isara_jax.models.attention.tpu import PAGE, padded_head_size, padded_kv_heads
from isara_jax.runtime.mesh import make_mesh


def paged_cache(*, rows=3, mesh=None, shared=PAGE):
    return PagedKVCache.empty(
        TINY,
        layers=(2,),
        rows=rows,
        max_len=PAGE + 1,
        max_shared_len=shared,
        dtype=jnp.dtype(jnp.float32),
        backend=AttentionBackend("tpu", mesh),
    )


def test_a_row_has_its_pages_and_one_for_the_rest_of_the_shared_positions():
    cache = paged_cache()
    heads = padded_kv_heads(TINY.kv_heads, jnp.dtype(jnp.float32))
    size = padded_head_size(TINY.head_size)
    assert cache.pages[0].shape == (2, 1, PAGE + 3 * 3 * PAGE, 2 * heads, size)
    assert cache.kv_len(1) == 3 * PAGE


def test_each_shard_has_the_shared_pages_of_its_own():
    cache = paged_cache(rows=4, mesh=make_mesh(data=2, model=1))
    assert cache.pages[0].shape[1:3] == (2, PAGE + 2 * 3 * PAGE)
    # Rows that the devices do not divide stay together.
    whole = paged_cache(rows=3, mesh=make_mesh(data=2, model=1))
    assert whole.pages[0].shape[1] == 1


def test_the_table_leads_from_full_shared_pages_to_a_row_s_own():
    cache = paged_cache()
    positions = cache.pages[0].shape[2]
    nothing_shared, one_page, second_layer = (
        np.asarray(
            cache._page_table(3, jnp.int32(row_start), jnp.int32(layer), positions)
        )
        for row_start, layer in [(0, 0), (PAGE, 0), (PAGE, 1)]
    )
    assert nothing_shared[:, :3].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert one_page.tolist() == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 9]]
    assert (second_layer == one_page + positions // PAGE).all()
