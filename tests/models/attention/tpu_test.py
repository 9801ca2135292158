"""How keys and values are padded and laid out for the chip, without one."""

import jax.numpy as jnp
import numpy as np
import pytest

from isara_jax.models.attention.tpu import (
    interleave_kv,
    padded_head_size,
    padded_kv_heads,
)


@pytest.mark.parametrize(("size", "padded"), [(64, 128), (128, 128), (129, 256)])
def test_a_head_fills_whole_lanes(size, padded):
    assert padded_head_size(size) == padded


@pytest.mark.parametrize(
    ("kv_heads", "dtype", "padded"),
    [
        (1, "float32", 1),
        (2, "float32", 2),
        (3, "float32", 4),
        (32, "float32", 32),
        (1, "bfloat16", 1),
        (3, "bfloat16", 4),
        (5, "bfloat16", 8),
        (32, "bfloat16", 32),
    ],
)
def test_heads_fill_whole_tiles(kv_heads, dtype, padded):
    assert padded_kv_heads(kv_heads, jnp.dtype(dtype)) == padded


def test_keys_and_values_alternate_and_zeros_follow():
    k = np.arange(2 * 3 * 2 * 4, dtype=np.float32).reshape(2, 3, 2, 4) + 1
    pages = np.asarray(interleave_kv(jnp.asarray(k), jnp.asarray(-k), heads=3, size=5))
    assert pages.shape == (2, 3, 6, 5)
    for head in range(2):
        np.testing.assert_array_equal(pages[:, :, 2 * head, :4], k[:, :, head])
        np.testing.assert_array_equal(pages[:, :, 2 * head + 1, :4], -k[:, :, head])
    assert not pages[:, :, 4:].any() and not pages[..., 4:].any()
