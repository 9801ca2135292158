"""The passes over a decoder's layers that write and read a KV cache.

The layers may be split into blocks (`engine.kv_cache.layer_blocks` says when). Within a
block they are scanned. The blocks follow each other in the program, and each has a
cache of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models.attention import AttentionBackend, attention, causal_attention
from isara_jax.models.decoder import Attend, Decoder, left_padded_positions
from isara_jax.runtime import dtype_of

Blocks = tuple[Any, ...]
KeysAndValues = tuple[Float[Array, "l B K S H"], Float[Array, "l B K S H"]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LeftPaddedCache:
    """Keys and values of every layer, left-padded rows, all rows at one length.

    column    0 1 2 3 4 5 6 7
    segments  0 0 1 1 1 1 - -     0: padding, or not yet written
                      length=6
    """

    keys: Float[Array, "L B K S H"]
    values: Float[Array, "L B K S H"]
    segments: Int[Array, "B S"]
    length: Int[Array, ""]


def run_blocks(
    model: Decoder,
    blocks: Blocks,
    x: Array,
    *,
    positions: Array,
    caches: Sequence[Any],
    attend: Callable[[Any, Array], Attend],
) -> tuple[Array, tuple[Any, ...]]:
    """Runs x through all layers; returns it with the caches that attention wrote.

    `caches` are the arrays of each block's layers, [l, ...]. `attend` takes a block's
    and the number of a layer in it; the function that it returns gives what was
    attended, and the block's cache.
    """
    after = []
    for block, before in zip(blocks, caches, strict=True):
        layer_pass = partial(_layer_pass, model, positions=positions, attend=attend)
        numbered = (jnp.arange(layers_of(block)), block)
        (x, cache), _ = jax.lax.scan(layer_pass, (x, before), numbered)
        after.append(cache)
    return model.finish(x), tuple(after)


def layers_of(block: Any) -> int:
    """Returns how many layers a block holds."""
    count: int = jax.tree.leaves(block)[0].shape[0]
    return count


def prefill(
    model: Decoder,
    tokens: Int[Array, "B T"],
    *,
    segments: Int[Array, "B T"],
    capacity: int,
    backend: AttentionBackend | None = None,
) -> tuple[Float[Array, "B D"], LeftPaddedCache]:
    """Runs left-padded prompts into a new cache with room for `capacity` positions.

    Returns the hidden state at the last position of every row, and the cache.
    """
    positions = left_padded_positions(segments)
    rows, length = tokens.shape

    def attend(cache: KeysAndValues, number: Array) -> Attend:
        def attended(q: Array, k: Array, v: Array) -> tuple[Array, KeysAndValues]:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            mixed = causal_attention(
                q,
                k,
                v,
                segments=segments,
                window=model.config.window,
                backend=backend,
            )
            return mixed, _written(cache, k, v, layer=number, start=0)

        return attended

    empty = empty_cache(model, rows=rows, capacity=capacity)
    x, ((keys, values),) = run_blocks(
        model,
        (model.layers,),
        model.embed(tokens, positions),
        positions=positions,
        caches=((empty.keys, empty.values),),
        attend=attend,
    )
    padded = jnp.pad(segments, ((0, 0), (0, capacity - length)))
    return x[:, -1], LeftPaddedCache(
        keys, values, segments=padded, length=jnp.int32(length)
    )


def extend(
    model: Decoder, tokens: Int[Array, "B T"], cache: LeftPaddedCache
) -> tuple[Float[Array, "B T D"], LeftPaddedCache]:
    """Runs T more tokens a row against the cache and writes them into it."""
    start, length = cache.length, tokens.shape[1]
    written = jnp.ones(tokens.shape, cache.segments.dtype)
    segments = jax.lax.dynamic_update_slice(cache.segments, written, (0, start))
    before = jnp.sum(cache.segments != 0, axis=1, keepdims=True)
    positions = before + jnp.arange(length)
    columns = jnp.arange(segments.shape[1])
    back = (start + jnp.arange(length))[:, None] - columns[None, :]
    near = (back >= 0) & (back < (model.config.window or segments.shape[1]))
    visible = (segments != 0)[:, None, :] & near[None]

    def attend(pair: KeysAndValues, number: Array) -> Attend:
        def attended(q: Array, k: Array, v: Array) -> tuple[Array, KeysAndValues]:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            longer = _written(pair, k, v, layer=number, start=start)
            own_keys, own_values = (array[number] for array in longer)
            return attention(q, own_keys, own_values, visible=visible), longer

        return attended

    x, ((keys, values),) = run_blocks(
        model,
        (model.layers,),
        model.embed(tokens, positions),
        positions=positions,
        caches=((cache.keys, cache.values),),
        attend=attend,
    )
    return x, LeftPaddedCache(keys, values, segments=segments, length=start + length)


def empty_cache(model: Decoder, *, rows: int, capacity: int) -> LeftPaddedCache:
    """Returns a cache with nothing written."""
    c = model.config
    shape = (c.layers, rows, c.kv_heads, capacity, c.head_size)
    dtype = dtype_of(model.layers)
    return LeftPaddedCache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        segments=jnp.zeros((rows, capacity), jnp.int32),
        length=jnp.zeros((), jnp.int32),
    )


def _layer_pass(
    model: Decoder,
    carry: tuple[Array, Any],
    numbered: tuple[Array, Any],
    *,
    positions: Array,
    attend: Callable[[Any, Array], Attend],
) -> tuple[tuple[Array, Any], None]:
    x, cache = carry
    number, layer = numbered
    return model.run_layer(layer, x, positions, attend(cache, number)), None


def _written(
    cache: KeysAndValues,
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    layer: Int[Array, ""],
    start: Int[Array, ""] | int,
) -> KeysAndValues:
    """Writes a layer's new positions: in place, as the cache is the loop's carry."""
    at = (layer, 0, 0, start, 0)
    keys, values = cache
    return (
        jax.lax.dynamic_update_slice(keys, k[None], at),
        jax.lax.dynamic_update_slice(values, v[None], at),
    )
