"""The state of the slots between two tokens, and what is done to it in one program."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from isara_jax.engine.kv_cache import (
    KVCache,
    LayerBlocks,
    constrain_cache,
    empty_kv_cache,
)
from isara_jax.engine.sampling import TokenBuffer
from isara_jax.models.attention import attention_backend
from isara_jax.runtime import Mesh, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DecodeState:
    """What every slot holds: a text, and what is needed to go on with it.

    `log_probabilities` are those of the tokens of the continuation, `limits` how many
    there may be. A slot that is done, or empty, stays as it is.
    """

    cache: KVCache
    texts: TokenBuffer
    logits: Float[Array, "B V"]
    log_probabilities: Float[Array, "B N"]
    limits: Int[Array, " B"]
    keys: Key[Array, " B"]
    done: Bool[Array, " B"]


@partial(jax.jit, static_argnames=("rows", "capacity", "shared", "new_tokens", "mesh"))
def empty_state(
    stack: LayerBlocks,
    *,
    rows: int,
    capacity: int,
    shared: int,
    new_tokens: int,
    mesh: Mesh,
) -> DecodeState:
    """Returns slots of which none holds a text."""
    vocabulary = stack.model.config.vocab_size
    zeros = jnp.zeros(rows, jnp.int32)
    texts = TokenBuffer(
        token_ids=jnp.zeros((rows, shared + capacity), jnp.int32),
        segments=jnp.ones((rows, shared + capacity), jnp.int32),
        ends=zeros,
        generated=zeros,
        seen=jnp.zeros((rows, vocabulary), bool),
    )
    state = DecodeState(
        cache=empty_kv_cache(
            stack,
            rows=rows,
            capacity=capacity,
            shared=shared,
            backend=attention_backend(mesh),
        ),
        texts=texts,
        logits=jnp.zeros((rows, vocabulary), jnp.float32),
        log_probabilities=jnp.zeros((rows, new_tokens), jnp.float32),
        limits=zeros,
        keys=jnp.broadcast_to(jax.random.key(0), (rows,)),
        done=jnp.ones(rows, bool),
    )
    return constrain_state(state, mesh)


@partial(jax.jit, donate_argnames=("state",), static_argnames=("mesh",))
def share(
    state: DecodeState, path: KVCache, count: Int[Array, ""], *, mesh: Mesh
) -> DecodeState:
    """Takes the first `count` positions of the path for all slots to see."""
    cache = state.cache.sharing(path, count)
    return constrain_state(replace(state, cache=cache), mesh)


@partial(jax.jit, donate_argnames=("state",), static_argnames=("mesh",))
def insert(
    state: DecodeState,
    path: KVCache,
    logits: Float[Array, " V"],
    *,
    row: Int[Array, ""],
    tokens: Int[Array, " S"],
    length: Int[Array, ""],
    limit: Int[Array, ""],
    key: Key[Array, ""],
    mesh: Mesh,
) -> DecodeState:
    """Puts a prompt that was run on the path into a slot."""
    texts = state.texts
    seen = jnp.zeros(texts.seen.shape[1], bool)
    seen = seen.at[tokens].max(jnp.arange(tokens.shape[0]) < length)
    state = DecodeState(
        cache=state.cache.with_row(path, row=row, length=length),
        texts=TokenBuffer(
            token_ids=texts.token_ids.at[row].set(tokens),
            segments=texts.segments,
            ends=texts.ends.at[row].set(length),
            generated=texts.generated.at[row].set(0),
            seen=texts.seen.at[row].set(seen),
        ),
        logits=state.logits.at[row].set(logits),
        log_probabilities=state.log_probabilities,
        limits=state.limits.at[row].set(limit),
        keys=state.keys.at[row].set(key),
        done=state.done.at[row].set(False),
    )
    return constrain_state(state, mesh)


def constrain_state(state: DecodeState, mesh: Mesh) -> DecodeState:
    """Gives the state the layout on the mesh that every program keeps.

    Left to the compiler, it changed from one to the next: that compiled programs twice,
    and the state could not be updated in place.
    """

    def split(array: Array, *words: str) -> Array:
        return constrain(array, words, mesh)

    texts = state.texts
    return replace(
        state,
        cache=constrain_cache(state.cache, mesh),
        texts=TokenBuffer(
            token_ids=split(texts.token_ids, "batch", "time"),
            segments=split(texts.segments, "batch", "time"),
            ends=split(texts.ends, "batch"),
            generated=split(texts.generated, "batch"),
            seen=split(texts.seen, "batch", "vocab"),
        ),
        logits=split(state.logits, "batch", "vocab"),
        log_probabilities=split(state.log_probabilities, "batch", "time"),
        limits=split(state.limits, "batch"),
        done=split(state.done, "batch"),
    )
