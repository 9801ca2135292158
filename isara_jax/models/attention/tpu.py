"""Attention on TPU: splash attention for training, ragged paged attention with a cache.

Both are Pallas kernels that JAX ships. The paged one serves prefill and decoding: the T
queries of a row are the last T of its positions. It returns no log-sum-exp, so a shared
prefix is not read once for all rows. Its pages are stored once, and every row's page
table lists them.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import (
    ragged_paged_attention,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
    splash_attention_mask as masks,
)
from jaxtyping import Array, Float, Int

LANES = 128
# Blocks of splash attention, the largest that divides a row.
ROW_BLOCKS = (512, 256, 128)
# Positions of a page.
PAGE = 128
PAGES_AT_ONCE = 4
QUERIES_AT_ONCE = 32
SCRATCH_BYTES = 64 * 2**20


def causal_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    segments: Int[Array, "B T"],
    window: int | None,
) -> Float[Array, "B T N H"]:
    """Attends from each position to those up to it that have its segment id."""
    length, heads, size = q.shape[1:]
    pad = -length % LANES
    block = next(size for size in ROW_BLOCKS if (length + pad) % size == 0)
    shape = (length + pad, length + pad)
    mask = (
        masks.CausalMask(shape)
        if window is None
        else masks.LocalMask(shape, window_size=(window - 1, 0), offset=0)
    )
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(*(block,) * 8),
        head_shards=1,
        q_seq_shards=1,
    )
    along = ((0, 0), (0, 0), (0, pad), (0, 0))
    rows = q.swapaxes(1, 2) * size**-0.5
    ids = jnp.pad(segments, along[1:3], constant_values=-1)
    mixed = jax.vmap(kernel)(
        *(jnp.pad(array, along) for array in (rows, k, v)), splash.SegmentIds(ids, ids)
    )
    return mixed[:, :, :length].swapaxes(1, 2)


def padded_head_size(size: int) -> int:
    """Rounds a head size up to whole lanes, as the chip's memory does in any case."""
    return size + -size % LANES


def padded_kv_heads(kv_heads: int, dtype: jnp.dtype) -> int:
    """Returns how many KV heads, padding included, fill the chip's tiles."""
    packing = 4 // dtype.itemsize
    while True:
        tiles, rest = divmod(2 * kv_heads, packing)
        if rest == 0 and (tiles in (1, 2, 4) or tiles % 8 == 0):
            return kv_heads
        kv_heads += 1


def interleave_kv(
    k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], *, heads: int, size: int
) -> Float[Array, "B T C W"]:
    """Interleaves keys and values as pages hold them: k0 v0 k1 v1 ...

    Both are padded to `heads` heads of `size` numbers.
    """
    both = jnp.stack([k, v], axis=3)
    padding = ((0, heads - k.shape[2]), (0, 0), (0, size - k.shape[3]))
    both = jnp.pad(both, ((0, 0), (0, 0), *padding))
    return both.reshape(*both.shape[:2], 2 * heads, size)


def paged_attention(
    q: Float[Array, "B T N H"],
    pages: Float[Array, "pages page C W"],
    *,
    kv_heads: int,
    lengths: Int[Array, " B"],
    table: Int[Array, "B a_row"],
    window: int | None,
) -> Float[Array, "B T N H"]:
    """Attends from the last T of each row's `lengths` positions to those up to each.

    `table` lists the pages of each row's positions.
    """
    rows, count, heads, size = q.shape
    group = heads // kv_heads
    grouped = q.reshape(rows * count, kv_heads, group * size)
    padding = pages.shape[2] // 2 - kv_heads
    grouped = jnp.pad(grouped, ((0, 0), (0, padding), (0, 0)))
    tokens = grouped.reshape(rows * count, -1, size)
    tokens = jnp.pad(tokens, ((0, 0), (0, 0), (0, pages.shape[3] - size)))
    mixed = ragged_paged_attention(
        tokens,
        pages,
        lengths,
        table,
        count * jnp.arange(rows + 1, dtype=jnp.int32),
        jnp.full(1, rows, jnp.int32),
        sm_scale=size**-0.5,
        sliding_window=window,
        num_kv_pages_per_block=min(PAGES_AT_ONCE, table.shape[1]),
        num_queries_per_block=min(QUERIES_AT_ONCE, rows * count),
        vmem_limit_bytes=SCRATCH_BYTES,
    )
    return mixed[:, :heads, :size].reshape(q.shape)
