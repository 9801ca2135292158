"""What rows of the dense KV caches hold after a prompt's row is copied into them."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY

from isara_jax.engine.kv_cache.flash import FlashKVCache
from isara_jax.engine.kv_cache.xla import XlaKVCache
from isara_jax.models.attention.dispatch import XLA

KINDS = [XlaKVCache, FlashKVCache]


def empty(kind, *, rows, max_len, max_shared_len=0):
    return kind.empty(
        TINY,
        layers=(2, 1),
        rows=rows,
        max_len=max_len,
        max_shared_len=max_shared_len,
        dtype=jnp.dtype(jnp.float32),
        backend=XLA,
    )


def numbered(cache):
    """Writes into every position its own number."""

    def fill(arrays, axes):
        time = axes.index("time")
        return tuple(
            jnp.broadcast_to(
                jnp.arange(array.shape[time]).reshape(
                    [-1 if axis == time else 1 for axis in range(array.ndim)]
                ),
                array.shape,
            ).astype(array.dtype)
            for array in arrays
        )

    return fill(cache.keys, cache.KEY_AXES), fill(cache.values, cache.VALUE_AXES)


def kv_row_of(kind, length):
    kv_row = empty(kind, rows=1, max_len=length)
    keys, values = numbered(kv_row)
    blocks = zip(keys, values, kv_row.shared_keys, kv_row.shared_values, strict=True)
    return kv_row.with_blocks(tuple(blocks))


def positions(array, axes, row):
    """Returns the number written at each position of a row, the same in all heads."""
    moved = jnp.moveaxis(array, axes.index("time"), -1)[:, row]
    flat = np.asarray(moved).reshape(-1, moved.shape[-1])
    assert (flat == flat[0]).all()
    return flat[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_takes_a_prompt_s_positions_and_the_others_stay(kind):
    cache = empty(kind, rows=3, max_len=8)
    cache = cache.insert(kv_row_of(kind, 300), row=jnp.int32(1), length=jnp.int32(5))
    assert cache.lengths.tolist() == [0, 5, 0]
    for arrays, axes in [
        (cache.keys, cache.KEY_AXES),
        (cache.values, cache.VALUE_AXES),
    ]:
        for array in arrays:
            assert positions(array, axes, 1)[:5] == [0, 1, 2, 3, 4]
            assert set(positions(array, axes, 0)) == {0.0}


@pytest.mark.parametrize("kind", KINDS)
def test_shared_positions_are_held_once(kind):
    kv_row = kv_row_of(kind, 300)
    cache = empty(kind, rows=3, max_len=8, max_shared_len=4)
    cache = cache.share_prefix(kv_row, jnp.int32(3))
    cache = cache.insert(kv_row, row=jnp.int32(2), length=jnp.int32(5))
    assert cache.lengths.tolist() == [0, 0, 2]
    assert positions(cache.shared_values[0], cache.VALUE_AXES, 0)[:3] == [0, 1, 2]
    assert positions(cache.values[0], cache.VALUE_AXES, 2)[:2] == [3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_taken_in_the_order_asked_for(kind):
    cache = empty(kind, rows=3, max_len=8)
    cache = cache.insert(kv_row_of(kind, 300), row=jnp.int32(1), length=jnp.int32(5))
    taken = cache.take_rows(jnp.array([1, 2]))
    assert taken.lengths.tolist() == [5, 0]
    assert positions(taken.keys[1], taken.KEY_AXES, 0)[:5] == [0, 1, 2, 3, 4]
    assert taken.max_len == cache.max_len
