"""The slots: a KV cache in which every row has its own length, and a step over it.

A row's positions lie from column 0 on, so what a row computes depends on nothing but
the row. The positions of a beginning that all rows share are kept once.
Keys lie with their positions last: on CPU their product with a query then reads them in
order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.engine.stack import Stack, block_sizes, run_blocks
from isara_jax.models.decoder import Attend
from isara_jax.models.layers import Piece, attention_over
from isara_jax.runtime.mesh import Mesh, sharding_for


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SlotCache:
    """Keys and values a block of layers: keys [l, B, K, H, S], values [l, B, K, S, H].

    `shared_keys` and `shared_values` are those of the first `shared` positions of every
    row, with B = 1 and room for P. `lengths` counts a row's own positions after these.
    """

    keys: tuple[Float[Array, "_ B K H S"], ...]
    values: tuple[Float[Array, "_ B K S H"], ...]
    shared_keys: tuple[Float[Array, "_ 1 K H P"], ...]
    shared_values: tuple[Float[Array, "_ 1 K P H"], ...]
    shared: Int[Array, ""]
    lengths: Int[Array, " B"]


def empty_slots(stack: Stack, *, rows: int, capacity: int, shared: int) -> SlotCache:
    """Returns slots with nothing written and room for so many positions."""

    def keys(rows: int, room: int) -> tuple[Array, ...]:
        return _zeros(stack, lambda c: (rows, c.kv_heads, c.head_size, room))

    def values(rows: int, room: int) -> tuple[Array, ...]:
        return _zeros(stack, lambda c: (rows, c.kv_heads, room, c.head_size))

    return SlotCache(
        keys=keys(rows, capacity),
        values=values(rows, capacity),
        shared_keys=keys(1, shared),
        shared_values=values(1, shared),
        shared=jnp.zeros((), jnp.int32),
        lengths=jnp.zeros(rows, jnp.int32),
    )


def _zeros(stack: Stack, shape: Callable[[Any], tuple[int, ...]]) -> tuple[Array, ...]:
    dtype = jax.tree.leaves(stack.blocks[0])[0].dtype
    return tuple(
        jnp.zeros((layers, *shape(stack.model.config)), dtype)
        for layers in block_sizes(stack)
    )


def step(
    stack: Stack, tokens: Int[Array, " B"], cache: SlotCache
) -> tuple[Float[Array, "B D"], SlotCache]:
    """Runs one more token a row and writes it at the row's end.

    A row that is full must be done: what stands in it may be lost. `lengths` are left
    to the caller.
    """
    rows = jnp.arange(tokens.shape[0])
    positions = (cache.shared + cache.lengths)[:, None]
    window = stack.model.config.window
    own = jnp.arange(cache.values[0].shape[3])
    own_visible = own <= cache.lengths[:, None]
    early = jnp.arange(cache.shared_values[0].shape[3])
    early_visible = jnp.broadcast_to(early < cache.shared, (len(rows), early.size))
    if window:
        own_visible &= own > cache.lengths[:, None] - window
        early_visible &= early > positions - window

    def attend(block: tuple, number: Array) -> Attend:
        keys, values, shared_keys, shared_values = block

        def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
            longer_keys = _with_keys(keys, k[:, 0], layer=number, at=cache.lengths)
            longer_values = _with_values(
                values, v[:, 0], layer=number, at=cache.lengths
            )
            pieces = [
                Piece(
                    longer_keys[number].swapaxes(2, 3),
                    longer_values[number],
                    own_visible[:, None],
                )
            ]
            if early.size:
                pieces.append(
                    Piece(
                        shared_keys[number].swapaxes(2, 3),
                        shared_values[number],
                        early_visible[:, None],
                    )
                )
            mixed = attention_over(q, pieces)
            return mixed, (longer_keys, longer_values, shared_keys, shared_values)

        return attended

    x, blocks = run_blocks(
        stack,
        stack.model.embed(tokens[:, None], positions),
        positions=positions,
        caches=tuple(
            zip(
                cache.keys,
                cache.values,
                cache.shared_keys,
                cache.shared_values,
                strict=True,
            )
        ),
        attend=attend,
    )
    keys, values, _, _ = zip(*blocks, strict=True)
    return x[:, 0], replace(cache, keys=keys, values=values)


def _with_keys(
    keys: Float[Array, "_ B K H S"],
    new: Float[Array, "B K H"],
    *,
    layer: Int[Array, ""],
    at: Int[Array, " B"],
) -> Float[Array, "_ B K H S"]:
    """Writes one position a row of a layer."""
    rows = at.shape[0]
    if rows > 1:
        return keys.at[layer, jnp.arange(rows), :, :, at].set(new)
    # A scatter of one row becomes a guarded update, for which XLA copies the cache.
    start = (layer, 0, 0, 0, at[0])
    return jax.lax.dynamic_update_slice(keys, new[None, ..., None], start)


def _with_values(
    values: Float[Array, "_ B K S H"],
    new: Float[Array, "B K H"],
    *,
    layer: Int[Array, ""],
    at: Int[Array, " B"],
) -> Float[Array, "_ B K S H"]:
    """Writes one position a row of a layer."""
    rows = at.shape[0]
    if rows > 1:
        return values.at[layer, jnp.arange(rows), :, at].set(new)
    start = (layer, 0, 0, at[0], 0)
    return jax.lax.dynamic_update_slice(values, new[None, :, :, None], start)


def laid_out(cache: SlotCache, mesh: Mesh) -> SlotCache:
    """Gives the cache the layout on the mesh that every program keeps."""

    def split(array: Array, *words: str) -> Array:
        return jax.lax.with_sharding_constraint(
            array, sharding_for(words, array.shape, mesh)
        )

    def split_all(arrays: tuple[Array, ...], *words: str) -> tuple[Array, ...]:
        return tuple(split(array, *words) for array in arrays)

    keys = ("layers", "batch", "kv_heads", "head_dim", "time")
    values = ("layers", "batch", "kv_heads", "time", "head_dim")
    return SlotCache(
        keys=split_all(cache.keys, *keys),
        values=split_all(cache.values, *values),
        shared_keys=split_all(cache.shared_keys, *keys),
        shared_values=split_all(cache.shared_values, *values),
        shared=split(cache.shared),
        lengths=split(cache.lengths, "batch"),
    )
