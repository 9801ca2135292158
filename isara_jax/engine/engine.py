"""Continues prompts in slots: where one ends, the next takes its place.

A sample is fixed by the model, its prompt and its own key: neither the slot it is in
nor what runs beside it decides anything (DESIGN 5). The host looks at the slots once
every few tokens; what was decoded past a stop string is dropped.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain

import jax
from jaxtyping import Array, Key

from isara_jax.engine.beam import beam_batch
from isara_jax.engine.continuous_batching import ContinuousBatch
from isara_jax.engine.kv_cache import LayerBlocks, make_layer_blocks, rows_within
from isara_jax.engine.metrics import EngineMetrics
from isara_jax.engine.padded_batch import Batch, plan
from isara_jax.engine.prefill import empty_prefix_cache
from isara_jax.engine.request import Request
from isara_jax.engine.sampling import Completion, SamplingParams, StopCriteria
from isara_jax.engine.scheduler import Group, groups, rows_that_fit
from isara_jax.models import Decoder
from isara_jax.runtime import Mesh, log


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A model ready to write texts of up to `context` tokens, in so many slots.

    `check` may raise to stop it between two stretches of decoding.

    What the engine has computed of prompts it keeps no longer than a call; a model
    whose weights have changed needs a new engine.
    """

    model: Decoder
    mesh: Mesh
    slots: int
    context: int
    check: Callable[[], None]

    @cached_property
    def stack(self) -> LayerBlocks:
        """The model's layers, as they are run."""
        return make_layer_blocks(self.model, mesh=self.mesh)

    def generate(
        self,
        prompts: Sequence[Request],
        *,
        sampling_params: SamplingParams,
        stop_criteria: StopCriteria,
        key: Key[Array, ""],
        done: Collection[str] = (),
        figures: EngineMetrics | None = None,
    ) -> Iterator[list[Completion]]:
        """Yields completions as they end; `key` is that of the round's step.

        Prompts whose ids are `done` are left out, and the others written in the
        programs in which they would have been written with them. What is counted is
        added to the `figures`.

        Raises:
          InputError: a prompt and its continuation do not fit the model's context.
        """
        if sampling_params.beams > 1:
            return self._beams(
                self._batches(prompts, sampling_params),
                sampling_params=sampling_params,
                stop_criteria=stop_criteria,
                key=key,
                done=done,
            )
        return self._slots(
            self._planned(prompts, sampling_params),
            sampling_params=sampling_params,
            stop_criteria=stop_criteria,
            key=key,
            done=done,
            figures=EngineMetrics() if figures is None else figures,
        )

    def _slots(
        self,
        planned: Sequence[Group],
        *,
        sampling_params: SamplingParams,
        stop_criteria: StopCriteria,
        key: Key[Array, ""],
        done: Collection[str],
        figures: EngineMetrics,
    ) -> Iterator[list[Completion]]:
        path = None
        for group in planned:
            waiting = deque(
                (prompt, spans)
                for prompt, spans in zip(group.prompts, group.spans, strict=True)
                if prompt.id not in done
            )
            rows = group.rows
            while waiting:
                if path is None:
                    longest = _longest(planned)
                    path = empty_prefix_cache(
                        self.stack, longest=longest, mesh=self.mesh
                    )
                run = ContinuousBatch(
                    replace(group, rows=rows),
                    path=path,
                    mesh=self.mesh,
                    check=self.check,
                    sampling_params=sampling_params,
                    stop_criteria=stop_criteria,
                    key=key,
                    figures=figures,
                )
                try:
                    yield from run.completions(waiting)
                except jax.errors.JaxRuntimeError as error:
                    rows = _fewer_rows(rows, error, mesh=self.mesh)
                    waiting.extendleft(reversed(run.unfinished()))
                    path = None

    def _planned(
        self, prompts: Sequence[Request], sampling_params: SamplingParams
    ) -> tuple[Group, ...]:
        """Plans with the slots that were asked for, or as many as memory has room for.

        The free memory decides only where it is short: then a resumed step may be
        written in fewer slots, and differ from an undisturbed one in its last bits.
        """
        within = partial(
            groups,
            prompts,
            row_multiple=self.mesh.shape["data"],
            max_new_tokens=sampling_params.max_new_tokens,
            context=self.context,
        )
        planned = within(slots=self.slots)
        room = [rows_that_fit(self.stack, group, mesh=self.mesh) for group in planned]
        short = [
            (rows, group.rows)
            for rows, group in zip(room, planned, strict=True)
            if rows < group.rows
        ]
        if not short:
            return planned
        fitting, wanted = min(short)
        log(f"memory has room for {fitting} slots, not {wanted}")
        return within(slots=fitting)

    def _batches(
        self, prompts: Sequence[Request], sampling_params: SamplingParams
    ) -> tuple[Batch, ...]:
        """Plans for beams, each of which takes a slot; a batch has one limit."""
        limits = defaultdict(list)
        for prompt in prompts:
            limits[prompt.limit(sampling_params.max_new_tokens)].append(prompt)
        planned = (
            plan(
                limits[limit],
                slots=self.slots // sampling_params.beams,
                row_multiple=self.mesh.shape["data"],
                max_new_tokens=limit,
                context=self.context,
            )
            for limit in sorted(limits, reverse=True)
        )
        return tuple(chain.from_iterable(planned))

    def _beams(
        self,
        batches: Sequence[Batch],
        *,
        sampling_params: SamplingParams,
        stop_criteria: StopCriteria,
        key: Key[Array, ""],
        done: Collection[str],
    ) -> Iterator[list[Completion]]:
        for batch in batches:
            if all(prompt.id in done for prompt in batch.prompts):
                continue
            limit = batch.prompts[0].limit(sampling_params.max_new_tokens)
            completions = beam_batch(
                self.stack,
                batch,
                sampling_params=replace(sampling_params, max_new_tokens=limit),
                stop_criteria=stop_criteria,
                key=key,
                mesh=self.mesh,
                check=self.check,
            )
            yield [c for c in completions if c.id not in done]


def _fewer_rows(rows: int, error: jax.errors.JaxRuntimeError, *, mesh: Mesh) -> int:
    """Returns half of the slots, if it was memory for them that lacked."""
    multiple = mesh.shape["data"]
    if "RESOURCE_EXHAUSTED" not in str(error) or rows <= multiple:
        raise error
    fewer = rows_within(rows // 2, multiple=multiple)
    log(f"memory has no room for {rows} slots: going on with {fewer}")
    return fewer


def _longest(planned: Sequence[Group]) -> int:
    """The positions that the path needs: a slot takes all of its room from there."""
    return max(
        max(group.longest, group.shared + group.capacity, group.shared_room)
        for group in planned
    )
