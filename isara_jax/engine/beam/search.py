"""Beam search and beam-sample: several continuations of a prompt, of which one is kept.

A step extends the W beams of every prompt by a token each. A prompt's cache is never
copied nor reordered: a step writes the W new positions side by side behind the prompt,
and each beam knows which of them are its own text's.

    slot        p p p | a b | c d | e f |        W = 2
    beam 0 sees 1 1 1   1 0   1 0   0 1          a c f
    beam 1 sees 1 1 1   1 0   0 1   1 0          a d e

Stop strings have no part in the search: they cut the text that it has chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from isara_jax.engine.beam.hypotheses import (
    Hypotheses,
    extended,
    extensions,
    is_decided,
    no_hypotheses,
    still_open,
    with_finished,
)
from isara_jax.engine.kv_cache import LayerBlocks, bucketed_len
from isara_jax.engine.padded_batch import Batch, left_padded, validate_room
from isara_jax.engine.sampling import (
    Completion,
    SamplingParams,
    StaticParams,
    StopCriteria,
    TokenBuffer,
    TracedParams,
    completion_of,
)
from isara_jax.models import Cache, branch, prefill
from isara_jax.models.attention import attention_backend
from isara_jax.runtime import Mesh, constrain, shard_batch

STEPS_BETWEEN_SYNCS = 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class BeamState:
    """A batch between two tokens: `generated` of them are in every running beam.

    The cache has a row a prompt; `visible` are the slots of each beam's text.
    """

    cache: Cache
    visible: Bool[Array, "B W S"]
    logits: Float[Array, "B W V"]
    seen: Bool[Array, "B W V"]
    running: Hypotheses
    finished: Hypotheses
    generated: Int[Array, ""]
    done: Bool[Array, " B"]


def beam_batch(
    stack: LayerBlocks,
    batch: Batch,
    *,
    sampling_params: SamplingParams,
    stop_criteria: StopCriteria,
    key: Key[Array, ""],
    mesh: Mesh,
    check: Callable[[], None],
) -> list[Completion]:
    """Continues every prompt of the batch by its best hypothesis.

    `key` is that of the round's step, and
    `check` is called before every stretch of decoding, and may raise to stop the run.

    Raises:
      ValueError: the batch was planned for fewer new tokens.
    """
    validate_room(batch.shape, sampling_params.max_new_tokens)
    prompts = tuple(shard_batch(array, mesh) for array in left_padded(batch))
    state = start(
        stack,
        *prompts,
        beams=sampling_params.beams,
        new_tokens=sampling_params.max_new_tokens,
        mesh=mesh,
    )
    keys = _sample_keys(batch, key)
    eos = jnp.asarray(stop_criteria.eos, jnp.int32)
    done = np.arange(batch.shape.rows) >= len(batch.prompts)
    for first in range(0, sampling_params.max_new_tokens, STEPS_BETWEEN_SYNCS):
        check()
        last = min(first + STEPS_BETWEEN_SYNCS, sampling_params.max_new_tokens)
        state = search(
            stack,
            replace(state, done=shard_batch(done, mesh)),
            sampling_params.traced,
            prompts=prompts,
            keys=keys,
            eos=eos,
            last=jnp.int32(last),
            static=sampling_params.static,
        )
        done = np.asarray(state.done)
        if done.all():
            break
    return _completions(batch, state.finished, stop_criteria=stop_criteria)


@partial(jax.jit, static_argnames=("beams", "new_tokens", "mesh"))
def start(
    stack: LayerBlocks,
    tokens: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    *,
    beams: int,
    new_tokens: int,
    mesh: Mesh,
) -> BeamState:
    """Runs the prompts and readies the state before the first new token.

    The beams are alike, so all but the first are out of the first choice.
    """
    rows, length = tokens.shape
    capacity = bucketed_len(length + beams * new_tokens)
    hidden, cache = prefill(
        stack.model,
        tokens,
        segments=segments,
        capacity=capacity,
        backend=attention_backend(mesh),
        blocks=stack.blocks,
    )
    logits = stack.model.logits(hidden)
    row = jnp.arange(rows)[:, None]
    seen = jnp.zeros(logits.shape, bool).at[row, tokens].max(segments != 0)
    none = no_hypotheses(rows=rows, beams=beams, new_tokens=new_tokens)
    state = BeamState(
        cache=cache,
        visible=_for_beams(cache.segments != 0, beams),
        logits=_for_beams(logits, beams),
        seen=_for_beams(seen, beams),
        running=replace(none, scores=none.scores.at[:, 0].set(0.0)),
        finished=none,
        generated=jnp.zeros((), jnp.int32),
        done=jnp.zeros(rows, bool),
    )
    return constrain_beams(state, mesh)


@partial(jax.jit, static_argnames=("static",), donate_argnames=("state",))
def search(
    stack: LayerBlocks,
    state: BeamState,
    traced: TracedParams,
    *,
    prompts: tuple[Int[Array, "B T"], Int[Array, "B T"]],
    keys: Key[Array, " B"],
    eos: Int[Array, " E"],
    last: Int[Array, ""],
    static: StaticParams,
) -> BeamState:
    """Searches until every beam has `last` tokens or every prompt is done.

    `prompts` are the tokens and segments that the search began with.
    """
    most = state.running.tokens.shape[2]

    def unfinished(state: BeamState) -> Bool[Array, ""]:
        return (state.generated < last) & ~jnp.all(state.done)

    def step(state: BeamState) -> BeamState:
        own = jax.nn.log_softmax(state.logits)
        chosen = extensions(
            own,
            static,
            traced=traced,
            running=state.running,
            texts=_texts(state, prompts),
            eos=eos,
            keys=jax.vmap(jax.random.fold_in, (0, None))(keys, state.generated),
        )
        texts = extended(state.running, chosen, own=own)
        ended = jnp.isin(chosen.tokens, eos) | (state.generated + 1 == most)
        finished = with_finished(
            state.finished, texts, ended=ended, done=state.done, traced=traced
        )
        running, places = still_open(texts, ended=ended, beams=static.beams)
        decided = is_decided(running, finished, traced=traced)
        state = replace(
            state, running=running, finished=finished, done=state.done | decided
        )
        parents = jnp.take_along_axis(chosen.beams, places, axis=1)
        return _advanced(stack, state, parents=parents)

    return jax.lax.while_loop(unfinished, step, state)


def constrain_beams(state: BeamState, mesh: Mesh) -> BeamState:
    """Gives the state the layout on the mesh that the search keeps."""

    def split(array: Array, *words: str) -> Array:
        return constrain(array, words, mesh)

    def by_row(array: Array) -> Array:
        return split(array, *("batch", "time", "time", "time")[: array.ndim])

    def by_head(blocks: tuple[Array, ...]) -> tuple[Array, ...]:
        words = ("layers", "batch", "kv_heads", "time", "head_dim")
        return tuple(split(array, *words) for array in blocks)

    return BeamState(
        cache=Cache(
            keys=by_head(state.cache.keys),
            values=by_head(state.cache.values),
            segments=by_row(state.cache.segments),
            length=split(state.cache.length),
        ),
        visible=by_row(state.visible),
        logits=split(state.logits, "batch", "time", "vocab"),
        seen=split(state.seen, "batch", "time", "vocab"),
        running=jax.tree.map(by_row, state.running),
        finished=jax.tree.map(by_row, state.finished),
        generated=split(state.generated),
        done=by_row(state.done),
    )


def _texts(
    state: BeamState, prompts: tuple[Int[Array, "B T"], Int[Array, "B T"]]
) -> TokenBuffer:
    """Returns the texts of all beams as rows, prompt by prompt."""
    rows, beams, _ = state.running.tokens.shape
    tokens, segments = (jnp.repeat(array, beams, axis=0) for array in prompts)
    added = state.running.tokens.reshape(rows * beams, -1)
    generated = jnp.broadcast_to(state.generated, rows * beams)
    return TokenBuffer(
        token_ids=jnp.concatenate([tokens, added], axis=1),
        segments=jnp.concatenate([segments, jnp.ones_like(added)], axis=1),
        ends=tokens.shape[1] + generated,
        generated=generated,
        seen=state.seen.reshape(rows * beams, -1),
    )


def _advanced(
    stack: LayerBlocks, state: BeamState, *, parents: Int[Array, "B W"]
) -> BeamState:
    """Runs the beams' newest tokens, each behind the text of its own parent."""
    rows, beams = parents.shape
    row, beam = jnp.arange(rows)[:, None], jnp.arange(beams)
    newest = state.running.tokens[:, :, state.generated]
    text = state.visible[row, parents]
    visible = text.at[:, beam, state.cache.length + beam].set(True)
    hidden, cache = branch(
        stack.model,
        newest,
        state.cache,
        positions=jnp.sum(text, axis=2),
        visible=_within(visible, stack.model.config.window),
        blocks=stack.blocks,
    )
    logits = stack.model.logits(hidden.reshape(rows * beams, -1))
    return replace(
        state,
        cache=cache,
        visible=visible,
        logits=logits.reshape(rows, beams, -1),
        seen=state.seen[row, parents].at[row, beam, newest].set(True),
        generated=state.generated + 1,
    )


def _within(visible: Bool[Array, "B W S"], window: int | None) -> Bool[Array, "B W S"]:
    """Leaves of every text its last `window` positions."""
    if window is None:
        return visible
    from_the_end = jnp.cumsum(visible[:, :, ::-1], axis=2)[:, :, ::-1]
    return visible & (from_the_end <= window)


def _for_beams(array: Array, beams: int) -> Array:
    return jnp.repeat(array[:, None], beams, axis=1)


def _completions(
    batch: Batch, finished: Hypotheses, *, stop_criteria: StopCriteria
) -> list[Completion]:
    tokens, log_probabilities, lengths = (
        np.asarray(array)[:, 0]
        for array in (finished.tokens, finished.log_probabilities, finished.lengths)
    )
    return [
        completion_of(
            prompt,
            tokens[row, : lengths[row]],
            scores=log_probabilities[row],
            stop_criteria=stop_criteria,
        )
        for row, prompt in enumerate(batch.prompts)
    ]


def _sample_keys(batch: Batch, key: Key[Array, ""]) -> Key[Array, " B"]:
    numbers = [prompt.sample_index for prompt in batch.prompts]
    numbers += numbers[-1:] * (batch.shape.rows - len(numbers))
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.asarray(numbers))
