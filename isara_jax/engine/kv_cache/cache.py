"""The slots: a KV cache in which every row has its own length, and a step over it.

A row's positions lie from column 0 on, so what a row computes depends on nothing but
the row. The positions of a beginning that all rows share are kept once.

How they lie in memory is chosen when slots are made, by what attends to them: XLA, the
kernels of NVIDIA, or those of TPU. A path is a set of slots with one row.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache.flash import FlashKVCache
from isara_jax.engine.kv_cache.layer_blocks import LayerBlocks, block_sizes
from isara_jax.engine.kv_cache.paged import PagedKVCache
from isara_jax.engine.kv_cache.xla import XlaKVCache
from isara_jax.models import run_blocks
from isara_jax.models.attention import (
    AttentionBackend,
    padded_head_size,
    padded_kv_heads,
    supports_kv_cache,
)
from isara_jax.runtime import Mesh, dtype_of

KVCache = XlaKVCache | FlashKVCache | PagedKVCache


def empty_kv_cache(
    stack: LayerBlocks,
    *,
    rows: int,
    capacity: int,
    shared: int,
    backend: AttentionBackend,
) -> KVCache:
    """Returns slots with nothing written and room for so many positions."""
    config, dtype = stack.model.config, _dtype(stack)
    kind: type[KVCache] = XlaKVCache
    if backend.kind == "tpu":
        kind = PagedKVCache
    elif backend.kind == "nvidia" and supports_kv_cache(config.head_size, dtype):
        kind = FlashKVCache
    return kind.empty(
        config,
        layers=block_sizes(stack),
        rows=rows,
        capacity=capacity,
        shared=shared,
        dtype=dtype,
        backend=backend,
    )


def position_bytes(stack: LayerBlocks, backend: AttentionBackend) -> int:
    """Returns what a position of a row takes in all layers, as the slots lay it."""
    config, dtype = stack.model.config, _dtype(stack)
    heads, size = config.kv_heads, config.head_size
    if backend.kind == "tpu":
        heads = padded_kv_heads(heads, dtype)
        size = padded_head_size(size)
    return 2 * config.layers * heads * size * dtype.itemsize


def _dtype(stack: LayerBlocks) -> jnp.dtype:
    return dtype_of(stack.blocks)


def step(
    stack: LayerBlocks, tokens: Int[Array, " B"], cache: KVCache
) -> tuple[Float[Array, "B D"], KVCache]:
    """Runs one more token a row and writes it at the row's end.

    Nothing is written in a row that is full. `lengths` are left to the caller.
    """
    positions = (cache.shared + cache.lengths)[:, None]
    x, blocks = run_blocks(
        stack.model,
        stack.blocks,
        stack.model.embed(tokens[:, None], positions),
        positions=positions,
        caches=cache.blocks,
        attend=cache.decode_attention(window=stack.model.config.window),
    )
    return x[:, 0], cache.holding(blocks)


def constrain_cache(cache: KVCache, mesh: Mesh) -> KVCache:
    """Gives the cache the layout on the mesh that every program keeps."""
    return cache.constrain(mesh)
