"""Continuous batching: a slot whose continuation has ended takes the next prompt.

    prefix_cache, prefix = prefix_cache.prefill(prompt)
    state = insert(state, prefix, slot)
    state = decode(state, steps)

The decode batch and the prefix cache are values: each step returns new ones, and
donates the buffers of those that it was given.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from isara_jax.engine.beam import (
    BeamState,
    empty_beams,
    search,
    search_results,
)
from isara_jax.engine.decode import (
    DecodeState,
    decode,
    decode_compacted,
    empty_state,
    insert,
    program_key,
    rows_to_keep,
    share_prefix,
)
from isara_jax.engine.kv_cache import LayerBlocks
from isara_jax.engine.metrics import (
    ModelSizes,
    StepMetrics,
    decode_metrics,
    model_sizes,
    prefill_metrics,
    timed,
)
from isara_jax.engine.prefill import Prefix, PrefixCache
from isara_jax.engine.request import Request
from isara_jax.engine.sampling import (
    Completion,
    SamplingParams,
    StopCriteria,
    completion_of,
    has_stop,
)
from isara_jax.engine.scheduler import PlannedRequest, PrefixGroup
from isara_jax.engine.slots import Slots, empty_slots
from isara_jax.runtime import Mesh, shard_batch

# Decode steps between host syncs.
STEPS_BETWEEN_SYNCS = 8
# While prompts wait, a slot that has ended is idle until the next sync.
STEPS_BETWEEN_SYNCS_WHILE_WAITING = 4

State = DecodeState | BeamState


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What is the same for all groups of a call of `Engine.generate`.

    Attributes:
      check: called between two steps; may raise to stop the generation.
      key: each sample's own key is folded into it.
      parity: what is known of batch compaction, by decode program: whether it computes
        the same bits. The engine keeps it beyond the call.
    """

    layer_blocks: LayerBlocks
    mesh: Mesh
    sampling_params: SamplingParams
    stop_criteria: StopCriteria
    key: Key[Array, ""]
    check: Callable[[], None]
    parity: MutableMapping[Hashable, bool]

    @cached_property
    def sizes(self) -> ModelSizes:
        """What the costs of the model's steps follow from."""
        return model_sizes(self.layer_blocks.model)


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """The metrics of a step, the completions that ended in it, and the prefix cache."""

    prefix_cache: PrefixCache
    metrics: StepMetrics
    completions: Sequence[Completion] = ()


def continuous_batching(
    generation: Generation,
    group: PrefixGroup,
    prefix_cache: PrefixCache,
    *,
    requests: Sequence[PlannedRequest],
) -> Iterator[StepOutput]:
    """Generates a continuation of each request, which begin in their order.

    Yields an output for every prefill, and one for the decode steps between two host
    syncs. Consumes the prefix cache: the last output's is the one to go on with.
    """
    state, slots = _empty_batch(generation, group)
    waiting, to_share = deque(requests), group.shared_len
    while waiting or slots.occupied.any():
        for slot in slots.free[: len(waiting)]:
            generation.check()
            planned = waiting.popleft()
            prefix_cache, state, metrics = _prefill_into_slot(
                generation, prefix_cache, state, planned, slot, shared_len=to_share
            )
            slots, to_share = slots.assign(slot, planned.request), 0
            yield StepOutput(prefix_cache=prefix_cache, metrics=metrics)
        generation.check()
        state, slots, metrics = _decode_steps(
            generation,
            state,
            slots,
            is_draining=not waiting,
            shared_len=group.shared_len,
        )
        state, slots, completions = _take_ended(generation, state, slots)
        yield StepOutput(
            prefix_cache=prefix_cache, metrics=metrics, completions=completions
        )


def _empty_batch(generation: Generation, group: PrefixGroup) -> tuple[State, Slots]:
    params, mesh = generation.sampling_params, generation.mesh
    if params.beams > 1:
        beams = empty_beams(
            generation.layer_blocks,
            rows=group.rows,
            max_len=group.max_len,
            max_shared_len=group.max_shared_len,
            beams=params.beams,
            new_tokens=params.max_new_tokens,
            mesh=mesh,
        )
        return beams, empty_slots(group.rows)
    state = empty_state(
        generation.layer_blocks,
        rows=group.rows,
        max_len=group.max_len,
        max_shared_len=group.max_shared_len,
        new_tokens=params.max_new_tokens,
        mesh=mesh,
    )
    return state, empty_slots(group.rows)


def _prefill_into_slot(
    generation: Generation,
    prefix_cache: PrefixCache,
    state: State,
    planned: PlannedRequest,
    slot: int,
    *,
    shared_len: int,
) -> tuple[PrefixCache, State, StepMetrics]:
    """Prefills a prompt; its first `shared_len` positions are for all slots."""
    request = planned.request

    def run() -> tuple[PrefixCache, Prefix, State]:
        cache, prefix = prefix_cache.prefill(request.token_ids, planned.spans)
        batch = state
        if shared_len:
            batch = share_prefix(batch, prefix, shared_len, mesh=generation.mesh)
        batch = insert(
            batch,
            prefix,
            slot,
            limit=request.limit(generation.sampling_params.max_new_tokens),
            key=jax.random.fold_in(generation.key, request.sample_index),
            mesh=generation.mesh,
        )
        jax.block_until_ready(prefix.kv_row.blocks)
        return cache, prefix, batch

    (prefix_cache, prefix, state), timing = timed(run)
    metrics = prefill_metrics(prefix, timing, sizes=generation.sizes)
    return prefix_cache, state, metrics


def _decode_steps(
    generation: Generation,
    state: State,
    slots: Slots,
    *,
    is_draining: bool,
    shared_len: int,
) -> tuple[State, Slots, StepMetrics]:
    """Decodes until the next host sync, in fewer slots if that is possible."""
    kept, steps = None, STEPS_BETWEEN_SYNCS_WHILE_WAITING
    if is_draining:
        kept = rows_to_keep(state, slots.occupied, mesh=generation.mesh)
        steps = STEPS_BETWEEN_SYNCS

    def run() -> tuple[State, Slots, np.ndarray]:
        decoded, left = _decode(generation, state, slots, kept=kept, steps=steps)
        return decoded, left, np.asarray(decoded.generated, np.int64)

    (state, slots, generated), timing = timed(run)
    metrics = decode_metrics(
        (generated - slots.generated) * slots.occupied,
        timing,
        lengths=slots.lengths,
        shared_len=shared_len,
        beams=generation.sampling_params.beams,
        sizes=generation.sizes,
    )
    return state, replace(slots, generated=generated), metrics


def _decode(
    generation: Generation,
    state: State,
    slots: Slots,
    *,
    kept: np.ndarray | None,
    steps: int,
) -> tuple[State, Slots]:
    """Decodes so many steps; in the kept slots only, where that changes no bit."""
    static, mesh = generation.sampling_params.static, generation.mesh
    how: dict[str, Any] = {
        "eos": jnp.asarray(generation.stop_criteria.eos, jnp.int32),
        "static": static,
        "steps": jnp.int32(steps),
        "mesh": mesh,
    }

    def run(state: State) -> State:
        traced = generation.sampling_params.traced
        if isinstance(state, BeamState):
            return search(generation.layer_blocks, state, traced, **how)
        return decode(generation.layer_blocks, state, traced, **how)

    if kept is None:
        return run(state), slots
    program = program_key(state, static, generation.layer_blocks.model.config, mesh)
    has_parity = generation.parity.get(program)
    state, is_compacted = decode_compacted(
        state, kept, decode=run, has_parity=has_parity, mesh=mesh
    )
    generation.parity[program] = is_compacted
    return state, slots.take(kept) if is_compacted else slots


def _take_ended(
    generation: Generation, state: State, slots: Slots
) -> tuple[State, Slots, list[Completion]]:
    """Frees the slots whose continuations have ended, and returns these."""
    stop_criteria = generation.stop_criteria
    done, completions = np.array(state.done), []
    for slot, tokens, log_probabilities in _ended(state, slots, stop_criteria):
        request = cast(Request, slots.requests[slot])
        slots, done[slot] = slots.release(slot), True
        completions.append(
            completion_of(
                request, tokens, scores=log_probabilities, stop_criteria=stop_criteria
            )
        )
    if completions:
        state = replace(state, done=shard_batch(done, generation.mesh))
    return state, slots, completions


def _ended(
    state: State, slots: Slots, stop_criteria: StopCriteria
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the slots that have ended, their tokens, and the log-probabilities."""
    done, occupied = np.asarray(state.done), slots.occupied
    if isinstance(state, BeamState):
        yield from search_results(state, np.flatnonzero(done & occupied))
        return
    token_ids = np.asarray(state.texts.token_ids)
    starts = slots.lengths - slots.generated
    log_probabilities = np.asarray(state.log_probabilities)
    for slot in np.flatnonzero(occupied).tolist():
        tokens = token_ids[slot, starts[slot] : slots.lengths[slot]]
        if done[slot] or has_stop(tokens, stop_criteria):
            yield slot, tokens, log_probabilities[slot]
