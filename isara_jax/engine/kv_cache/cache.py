"""The slots: a KV cache in which every row has its own length, and a step over it.

A row's positions lie from column 0 on, so what a row computes depends on nothing but
the row. The positions of a beginning that all rows share are kept once.

How they lie in memory is chosen when slots are made, by what attends to them: XLA, the
kernels of NVIDIA, or those of TPU. A path is a set of slots with one row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache.flash import FlashSlots
from isara_jax.engine.kv_cache.layer_blocks import Stack, block_sizes
from isara_jax.engine.kv_cache.paged import PagedSlots
from isara_jax.engine.kv_cache.xla import PlainSlots
from isara_jax.models import run_blocks
from isara_jax.models.attention import (
    Kernels,
    padded_head_size,
    padded_kv_heads,
    takes_slots,
)
from isara_jax.runtime import Mesh

SlotCache = PlainSlots | FlashSlots | PagedSlots


def empty_slots(
    stack: Stack, *, rows: int, capacity: int, shared: int, kernels: Kernels
) -> SlotCache:
    """Returns slots with nothing written and room for so many positions."""
    config, dtype = stack.model.config, _dtype(stack)
    kind: type[SlotCache] = PlainSlots
    if kernels.kind == "tpu":
        kind = PagedSlots
    elif kernels.kind == "nvidia" and takes_slots(config.head_size, dtype):
        kind = FlashSlots
    return kind.empty(
        config,
        layers=block_sizes(stack),
        rows=rows,
        capacity=capacity,
        shared=shared,
        dtype=dtype,
        kernels=kernels,
    )


def position_bytes(stack: Stack, kernels: Kernels) -> int:
    """Returns what a position of a row takes in all layers, as the slots lay it."""
    config, dtype = stack.model.config, _dtype(stack)
    heads, size = config.kv_heads, config.head_size
    if kernels.kind == "tpu":
        heads = padded_kv_heads(heads, dtype)
        size = padded_head_size(size)
    return 2 * config.layers * heads * size * dtype.itemsize


def _dtype(stack: Stack) -> jnp.dtype:
    return jax.tree.leaves(stack.blocks[0])[0].dtype


def step(
    stack: Stack, tokens: Int[Array, " B"], cache: SlotCache
) -> tuple[Float[Array, "B D"], SlotCache]:
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
        attend=cache.attend_next(window=stack.model.config.window),
    )
    return x[:, 0], cache.holding(blocks)


def laid_out(cache: SlotCache, mesh: Mesh) -> SlotCache:
    """Gives the cache the layout on the mesh that every program keeps."""
    return cache.laid_out(mesh)
