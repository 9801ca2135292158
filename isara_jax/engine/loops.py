"""Prefill and decode loops, each inside one jit, over a state that is a value."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from isara_jax.engine.batches import Shape
from isara_jax.engine.decoding import Form, Strengths, choose
from isara_jax.engine.rules import Texts
from isara_jax.models.decoder import Cache, Decoder, extend, prefill
from isara_jax.runtime.mesh import Mesh, sharding_for


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DecodeState:
    """A batch between two tokens; `history` holds prompt and continuation by slot."""

    cache: Cache
    logits: Float[Array, "B V"]
    history: Int[Array, "B S"]
    log_probabilities: Float[Array, "B S"]
    seen: Bool[Array, "B V"]
    done: Bool[Array, " B"]


@partial(jax.jit, static_argnames=("shape", "mesh"))
def start(
    model: Decoder,
    tokens: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    *,
    shape: Shape,
    mesh: Mesh,
) -> DecodeState:
    """Runs the prompts and readies the state before the first new token."""
    hidden, cache = prefill(model, tokens, segments=segments, capacity=shape.capacity)
    logits = model.logits(hidden)
    room = ((0, 0), (0, shape.capacity - shape.prompt))
    rows = jnp.arange(shape.rows)[:, None]
    seen = jnp.zeros(logits.shape, bool).at[rows, tokens].max(segments != 0)
    state = DecodeState(
        cache=cache,
        logits=logits,
        history=jnp.pad(tokens, room),
        log_probabilities=jnp.zeros((shape.rows, shape.capacity)),
        seen=seen,
        done=jnp.zeros(shape.rows, bool),
    )
    return laid_out(state, mesh)


@partial(jax.jit, static_argnames=("form",), donate_argnames=("state",))
def decode(
    model: Decoder,
    state: DecodeState,
    strengths: Strengths,
    *,
    keys: Key[Array, " B"],
    eos: Int[Array, " E"],
    first_slot: Int[Array, ""],
    last_slot: Int[Array, ""],
    form: Form,
) -> DecodeState:
    """Decodes until `last_slot` is filled or every row is done."""

    def unfinished(state: DecodeState) -> Bool[Array, ""]:
        return (state.cache.length < last_slot) & ~jnp.all(state.done)

    def step(state: DecodeState) -> DecodeState:
        slot = state.cache.length
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, slot - first_slot)
        texts = Texts(
            history=state.history,
            segments=state.cache.segments,
            ends=jnp.broadcast_to(slot, keys.shape),
            generated=jnp.broadcast_to(slot - first_slot, keys.shape),
            seen=state.seen,
        )
        token = choose(
            state.logits, form, strengths=strengths, texts=texts, eos=eos, keys=now
        )
        own = jax.nn.log_softmax(state.logits)
        rows = jnp.arange(token.shape[0])
        hidden, cache = extend(model, token[:, None], state.cache)
        at = (0, slot)
        return DecodeState(
            cache=cache,
            logits=model.logits(hidden[:, 0]),
            history=jax.lax.dynamic_update_slice(state.history, token[:, None], at),
            log_probabilities=jax.lax.dynamic_update_slice(
                state.log_probabilities, own[rows, token][:, None], at
            ),
            seen=state.seen.at[rows, token].set(True),
            done=state.done | jnp.any(token[:, None] == eos, axis=1),
        )

    return jax.lax.while_loop(unfinished, step, state)


def laid_out(state: DecodeState, mesh: Mesh) -> DecodeState:
    """Gives the state the layout on the mesh that the decode loop keeps.

    Left to the compiler, it changed after the first stretch: that compiled the loop
    twice, and the state could not be updated in place.
    """

    def split(array: Array, *words: str) -> Array:
        return jax.lax.with_sharding_constraint(
            array, sharding_for(words, array.shape, mesh)
        )

    cached = ("layers", "batch", "kv_heads", "time", "head_dim")
    return DecodeState(
        cache=Cache(
            keys=split(state.cache.keys, *cached),
            values=split(state.cache.values, *cached),
            segments=split(state.cache.segments, "batch", "time"),
            length=split(state.cache.length),
        ),
        logits=split(state.logits, "batch", "vocab"),
        history=split(state.history, "batch", "time"),
        log_probabilities=split(state.log_probabilities, "batch", "time"),
        seen=split(state.seen, "batch", "vocab"),
        done=split(state.done, "batch"),
    )
