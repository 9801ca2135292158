"""The next token of every row, and the program that decodes several of them."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from isara_jax.engine.decode.state import DecodeState
from isara_jax.engine.kv_cache import LayerBlocks, step
from isara_jax.engine.sampling import StaticParams, TracedParams, sample
from isara_jax.runtime import Mesh


@partial(jax.jit, static_argnames=("static", "mesh"), donate_argnames=("state",))
def decode(
    layer_blocks: LayerBlocks,
    state: DecodeState,
    traced: TracedParams,
    *,
    eos: Int[Array, " E"],
    static: StaticParams,
    steps: Int[Array, ""],
    mesh: Mesh,
) -> DecodeState:
    """Decodes `steps` tokens a slot, or until every slot is done."""

    def unfinished(counted: tuple) -> Bool[Array, ""]:
        count, state = counted
        return (count < steps) & ~jnp.all(state.done)

    def next_token(counted: tuple) -> tuple:
        count, state = counted
        state = _next_token(layer_blocks, state, traced, eos=eos, static=static)
        return count + 1, state.constrain(mesh)

    _, state = jax.lax.while_loop(unfinished, next_token, (jnp.int32(0), state))
    return state


def _next_token(
    layer_blocks: LayerBlocks,
    state: DecodeState,
    traced: TracedParams,
    *,
    eos: Int[Array, " E"],
    static: StaticParams,
) -> DecodeState:
    texts, cache = state.texts, state.cache
    now = jax.vmap(jax.random.fold_in)(state.keys, texts.generated)
    token = sample(
        state.logits, static, traced=traced, texts=texts, eos=eos, keys=now
    ).astype(jnp.int32)
    rows, going = jnp.arange(token.shape[0]), ~state.done
    log_probability = state.logits[rows, token] - jax.nn.logsumexp(
        state.logits, axis=-1
    )
    # A column beyond the last one is not written: that of a slot that is done.
    column = jnp.where(going, texts.lengths, texts.token_ids.shape[1])
    step_index = jnp.where(going, texts.generated, state.log_probabilities.shape[1])
    hidden, longer = step(layer_blocks, token, cache)
    generated = texts.generated + going
    ended = jnp.any(token[:, None] == eos, axis=1) | (generated >= state.limits)
    return replace(
        state,
        cache=replace(longer, lengths=cache.lengths + going),
        texts=replace(
            texts,
            token_ids=texts.token_ids.at[rows, column].set(token),
            lengths=texts.lengths + going,
            generated=generated,
            seen=texts.seen.at[rows, token].max(going),
        ),
        logits=layer_blocks.model.logits(hidden),
        log_probabilities=state.log_probabilities.at[rows, step_index].set(
            log_probability
        ),
        done=state.done | ended,
    )
