"""The three passes over a decoder's layers: whole rows, prefill, and one step more.

A decoder of any family is a value with an embedding, stacked layers and a head; what
differs between the passes is only where a layer's keys and values come from. The layers
are scanned, so compile time does not grow with depth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from isara_jax.models.attention import Kernels, whole_rows
from isara_jax.models.plain_attention import attention

Remat = Literal["none", "full", "dots"]

# q, k, v of a layer -> (attended, what the pass carries from layer to layer).
Attend = Callable[[Array, Array, Array], tuple[Array, Any]]


@runtime_checkable
class Decoder(Protocol):
    """What the passes, the engine and the trainer need of a model."""

    config: Any
    layers: Any

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Turns token ids into the residual stream."""
        ...

    def run_layer(
        self, layer: Any, x: Float[Array, "B T D"], positions: Any, attend: Attend
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Applies one layer, whose arrays have lost their leading L axis."""
        ...

    def finish(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the final norm."""
        ...

    def logits(self, hidden: Float[Array, "rows D"]) -> Float[Array, "rows V"]:
        """Applies the output head to chosen positions, in fp32."""
        ...

    def scores(self, hidden: Float[Array, "rows D"]) -> Float[Array, "rows labels"]:
        """Applies the score head, of a model that has one instead, in fp32."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of every layer, left-padded rows, all rows at one length.

        slot      0 1 2 3 4 5 6 7
        segments  0 0 1 1 1 1 - -     0: padding, or not yet written
                          length=6

    `keys` and `values` are [L, B, K, S, H].
    """

    keys: Float[Array, "L B K S H"]
    values: Float[Array, "L B K S H"]
    segments: Int[Array, "B S"]
    length: Int[Array, ""]


def hidden_states(
    model: Decoder,
    tokens: Int[Array, "B T"],
    *,
    segments: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    remat: Remat,
    kernels: Kernels | None = None,
) -> Float[Array, "B T D"]:
    """Runs whole rows without a cache; a position sees its segment up to itself.

    `kernels` are what attention runs on: the platform's own unless given.
    """

    def layer_pass(x: Array, layer: Any) -> tuple[Array, None]:
        def attend(q: Array, k: Array, v: Array) -> tuple[Array, None]:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            return whole_rows(
                q,
                k,
                v,
                segments=segments,
                window=model.config.window,
                kernels=kernels,
            ), None

        return model.run_layer(layer, x, positions, attend)

    if remat == "full":
        layer_pass = jax.checkpoint(layer_pass)
    elif remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        layer_pass = jax.checkpoint(layer_pass, policy=policy)
    x, _ = jax.lax.scan(layer_pass, model.embed(tokens, positions), model.layers)
    return model.finish(x)


def prefill(
    model: Decoder,
    tokens: Int[Array, "B T"],
    *,
    segments: Int[Array, "B T"],
    capacity: int,
    kernels: Kernels | None = None,
) -> tuple[Float[Array, "B D"], Cache]:
    """Runs left-padded prompts into a new cache with room for `capacity` positions.

    Returns the hidden state at the last position of every row, and the cache.
    """
    positions = left_padded_positions(segments)
    x = model.embed(tokens, positions)
    room = ((0, 0), (0, capacity - tokens.shape[1]))

    def layer_pass(carry: tuple, numbered: tuple) -> tuple[tuple, None]:
        x, keys, values = carry
        number, layer = numbered

        def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            mixed = whole_rows(
                q,
                k,
                v,
                segments=segments,
                window=model.config.window,
                kernels=kernels,
            )
            return mixed, _written(keys, values, k, v, layer=number, start=0)

        x, (keys, values) = model.run_layer(layer, x, positions, attend)
        return (x, keys, values), None

    empty = empty_cache(model, rows=tokens.shape[0], capacity=capacity)
    count = empty.keys.shape[0]
    (x, keys, values), _ = jax.lax.scan(
        layer_pass, (x, empty.keys, empty.values), (jnp.arange(count), model.layers)
    )
    cache = Cache(
        keys=keys,
        values=values,
        segments=jnp.pad(segments, room),
        length=jnp.asarray(tokens.shape[1], jnp.int32),
    )
    return model.finish(x[:, -1:])[:, 0], cache


def extend(
    model: Decoder, tokens: Int[Array, "B T"], cache: Cache
) -> tuple[Float[Array, "B T D"], Cache]:
    """Runs T more tokens a row against the cache and writes them into it."""
    start, length = cache.length, tokens.shape[1]
    written = jnp.ones(tokens.shape, cache.segments.dtype)
    segments = jax.lax.dynamic_update_slice(cache.segments, written, (0, start))
    before = jnp.sum(cache.segments != 0, axis=1, keepdims=True)
    positions = before + jnp.arange(length)
    slots = jnp.arange(segments.shape[1])
    back = (start + jnp.arange(length))[:, None] - slots[None, :]
    near = (back >= 0) & (back < (model.config.window or segments.shape[1]))
    visible = (segments != 0)[:, None, :] & near[None]
    return branch(model, tokens, cache, positions=positions, visible=visible)


def branch(
    model: Decoder,
    tokens: Int[Array, "B T"],
    cache: Cache,
    *,
    positions: Int[Array, "B T"],
    visible: Bool[Array, "B T S"],
) -> tuple[Float[Array, "B T D"], Cache]:
    """Runs T more tokens a row, each of which sees the slots that it is told to.

    They are written into the next T slots of the cache, side by side, though they may
    stand at one position of texts that part there. `visible` holds a token's own slot,
    and keeps to the model's window.
    """
    start, length = cache.length, tokens.shape[1]
    written = jnp.ones(tokens.shape, cache.segments.dtype)
    segments = jax.lax.dynamic_update_slice(cache.segments, written, (0, start))

    def layer_pass(carry: tuple, numbered: tuple) -> tuple[tuple, None]:
        x, keys, values = carry
        number, layer = numbered

        def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
            written = _written(keys, values, k, v, layer=number, start=start)
            own_keys, own_values = written[0][number], written[1][number]
            return attention(q, own_keys, own_values, visible=visible), written

        x, (keys, values) = model.run_layer(layer, x, positions, attend)
        return (x, keys, values), None

    x = model.embed(tokens, positions)
    count = cache.keys.shape[0]
    (x, keys, values), _ = jax.lax.scan(
        layer_pass, (x, cache.keys, cache.values), (jnp.arange(count), model.layers)
    )
    longer = Cache(keys=keys, values=values, segments=segments, length=start + length)
    return model.finish(x), longer


def pooled_scores(
    model: Decoder,
    tokens: Int[Array, "B T"],
    *,
    segments: Int[Array, "B T"],
    kernels: Kernels | None = None,
) -> Float[Array, "B labels"]:
    """Returns what a model with a score head says of every row's last token.

    Rows may be padded on either side; segments are 1 for a token and 0 for padding.
    """
    hidden = hidden_states(
        model,
        tokens,
        segments=segments,
        positions=left_padded_positions(segments),
        remat="none",
        kernels=kernels,
    )
    slots = jnp.arange(tokens.shape[1])
    last = jnp.max(jnp.where(segments != 0, slots, 0), axis=1)
    return model.scores(hidden[jnp.arange(tokens.shape[0]), last])


def empty_cache(model: Decoder, *, rows: int, capacity: int) -> Cache:
    """Returns a cache with nothing written."""
    c = model.config
    shape = (c.layers, rows, c.kv_heads, capacity, c.head_size)
    dtype = jax.tree.leaves(model.layers)[0].dtype
    return Cache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        segments=jnp.zeros((rows, capacity), jnp.int32),
        length=jnp.zeros((), jnp.int32),
    )


def _written(
    keys: Float[Array, "L B K S H"],
    values: Float[Array, "L B K S H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    layer: Int[Array, ""],
    start: Int[Array, ""] | int,
) -> tuple[Float[Array, "L B K S H"], Float[Array, "L B K S H"]]:
    """Writes a layer's new positions: in place, as the cache is the loop's carry."""
    at = (layer, 0, 0, start, 0)
    return (
        jax.lax.dynamic_update_slice(keys, k[None], at),
        jax.lax.dynamic_update_slice(values, v[None], at),
    )


def left_padded_positions(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Counts positions from each row's first token; padding gets 0."""
    return jnp.maximum(jnp.cumsum(segments != 0, axis=1) - 1, 0)
