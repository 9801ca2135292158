"""Beam search and beam-sample: several continuations of a prompt, one of which is kept.

A step extends the W beams of every slot by a token each. Stop strings have no part in
the search: they cut the continuation that it has chosen.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from isara_jax.engine.beam.branches import beam_attention
from isara_jax.engine.beam.hypotheses import (
    extended,
    extensions,
    is_decided,
    still_open,
    with_finished,
)
from isara_jax.engine.beam.state import BeamState
from isara_jax.engine.kv_cache import LayerBlocks
from isara_jax.engine.sampling import StaticParams, TracedParams
from isara_jax.models import run_blocks
from isara_jax.runtime import Mesh


@partial(jax.jit, static_argnames=("static", "mesh"), donate_argnames=("state",))
def search(
    layer_blocks: LayerBlocks,
    state: BeamState,
    traced: TracedParams,
    *,
    eos: Int[Array, " E"],
    static: StaticParams,
    steps: Int[Array, ""],
    mesh: Mesh,
) -> BeamState:
    """Extends the beams by so many tokens, or until no slot is left to search."""

    def unfinished(counted: tuple) -> Bool[Array, ""]:
        count, state = counted
        return (count < steps) & ~jnp.all(state.done)

    def step(counted: tuple) -> tuple:
        count, state = counted
        chosen, parents = _choose(state, traced, eos=eos, static=static)
        state = replace(
            _advance(layer_blocks, chosen, parents),
            depth=state.depth + ~state.done,
        )
        return count + 1, state.constrain(mesh)

    _, state = jax.lax.while_loop(unfinished, step, (jnp.int32(0), state))
    return state


def _choose(
    state: BeamState,
    traced: TracedParams,
    *,
    eos: Int[Array, " E"],
    static: StaticParams,
) -> tuple[BeamState, Int[Array, "B W"]]:
    """Chooses the beams' next tokens; returns the beams that each of them extends."""
    log_probabilities = jax.nn.log_softmax(state.logits)
    chosen = extensions(
        log_probabilities,
        static,
        traced=traced,
        running=state.running,
        texts=state.texts(),
        eos=eos,
        keys=jax.vmap(jax.random.fold_in)(state.keys, state.depth),
    )
    texts = extended(state.running, chosen, log_probabilities=log_probabilities)
    at_limit = state.depth + 1 >= state.limits
    ended = jnp.isin(chosen.tokens, eos) | at_limit[:, None]
    finished = with_finished(
        state.finished, texts, ended=ended, done=state.done, traced=traced
    )
    running, places = still_open(texts, ended=ended, beams=static.beams)
    decided = is_decided(running, finished, traced=traced)
    state = replace(
        state, running=running, finished=finished, done=state.done | decided
    )
    return state, jnp.take_along_axis(chosen.beams, places, axis=1)


def _advance(
    layer_blocks: LayerBlocks, state: BeamState, parents: Int[Array, "B W"]
) -> BeamState:
    """Runs the beams' newest tokens through the model."""
    model, (rows, beams) = layer_blocks.model, parents.shape
    row, beam = jnp.arange(rows)[:, None], jnp.arange(beams)
    last = jnp.minimum(state.depth, state.running.tokens.shape[2] - 1)
    tokens = state.running.tokens[row, beam, last[:, None]]
    positions = (state.prompt_lengths + state.depth)[:, None]
    branches = state.branches.extended(parents, state.depth)
    x, blocks = run_blocks(
        model,
        layer_blocks.blocks,
        model.embed(tokens, jnp.broadcast_to(positions, tokens.shape)),
        positions=jnp.broadcast_to(positions, tokens.shape),
        caches=tuple(zip(state.cache.blocks, branches.blocks, strict=True)),
        attend=beam_attention(
            state.cache,
            branches,
            generated=state.depth,
            newest=jnp.max(jnp.where(state.done, 0, state.depth)),
            window=model.config.window,
        ),
    )
    _, written = zip(*blocks, strict=True)
    logits = model.logits(x.reshape(rows * beams, -1))
    return replace(
        state,
        branches=branches.holding(written),
        logits=logits.reshape(rows, beams, -1),
        seen=state.seen[row, parents].at[row, beam, tokens].set(True),
    )
