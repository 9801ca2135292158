"""The engine: a model that continues prompts of token ids, many at a time.

A sample is fixed by the model, its prompt and its own key: neither its slot nor what is
decoded beside it decides anything. The host looks at the slots once every few tokens;
what was decoded past a stop string is dropped.
"""

from collections import defaultdict
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterator,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain

import jax
from jaxtyping import Array, Key

from isara_jax.engine.beam import beam_batch
from isara_jax.engine.continuous_batching import (
    Generation,
    StepOutput,
    continuous_batching,
)
from isara_jax.engine.kv_cache import LayerBlocks, make_layer_blocks, rows_within
from isara_jax.engine.metrics import EngineMetrics
from isara_jax.engine.padded_batch import Batch, plan
from isara_jax.engine.prefill import empty_prefix_cache
from isara_jax.engine.request import Request
from isara_jax.engine.sampling import Completion, SamplingParams, StopCriteria
from isara_jax.engine.scheduler import Group, Planned, groups, rows_that_fit
from isara_jax.models import Decoder
from isara_jax.runtime import Mesh, log


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A model that generates texts of up to `context` tokens in so many slots.

    The prefix cache lives no longer than a call of `generate`. A model whose weights
    have changed needs a new engine.

    Attributes:
      check: called between two steps; may raise to stop the generation.
      compaction_parity: by decode program, whether batch compaction computes the same
        bits. Engines of models of one shape may share it, so that each program is
        asked about once.
    """

    model: Decoder
    mesh: Mesh
    slots: int
    context: int
    check: Callable[[], None]
    compaction_parity: MutableMapping[Hashable, bool] = field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def layer_blocks(self) -> LayerBlocks:
        """The model's layers in the blocks that suit the mesh's platform."""
        return make_layer_blocks(self.model, mesh=self.mesh)

    def generate(
        self,
        prompts: Sequence[Request],
        *,
        sampling_params: SamplingParams,
        stop_criteria: StopCriteria,
        key: Key[Array, ""],
        done: Collection[str] = (),
        metrics: EngineMetrics | None = None,
    ) -> Iterator[list[Completion]]:
        """Yields completions as they end; `key` is that of the round's step.

        Prompts whose ids are `done` are left out, and the others written in the
        programs in which they would have been written with them. What is counted is
        added to `metrics`.

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
        generation = Generation(
            layer_blocks=self.layer_blocks,
            mesh=self.mesh,
            sampling_params=sampling_params,
            stop_criteria=stop_criteria,
            key=key,
            check=self.check,
            parity=self.compaction_parity,
        )
        planned = self._planned(prompts, sampling_params)
        outputs = self._continuous(planned, generation, done=done)
        return _counted(outputs, EngineMetrics() if metrics is None else metrics)

    def _continuous(
        self, planned: Sequence[Group], generation: Generation, *, done: Collection[str]
    ) -> Iterator[StepOutput]:
        """Generates group by group, in fewer slots where memory turns out too short."""
        prefix_cache, ended = None, set(done)
        for planned_group in planned:
            group = planned_group
            while left := _not_ended(group, ended):
                if prefix_cache is None:
                    prefix_cache = empty_prefix_cache(
                        self.layer_blocks, longest=_longest(planned), mesh=self.mesh
                    )
                try:
                    for output in continuous_batching(
                        generation, group, prefix_cache, prompts=left
                    ):
                        prefix_cache = output.prefix_cache
                        ended.update(c.id for c in output.completions)
                        yield output
                except jax.errors.JaxRuntimeError as error:
                    rows = _fewer_rows(group.rows, error, mesh=self.mesh)
                    group, prefix_cache = replace(group, rows=rows), None

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
        room = [
            rows_that_fit(self.layer_blocks, group, mesh=self.mesh) for group in planned
        ]
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
                self.layer_blocks,
                batch,
                sampling_params=replace(sampling_params, max_new_tokens=limit),
                stop_criteria=stop_criteria,
                key=key,
                mesh=self.mesh,
                check=self.check,
            )
            yield [c for c in completions if c.id not in done]


def _counted(
    outputs: Iterator[StepOutput], metrics: EngineMetrics
) -> Iterator[list[Completion]]:
    """Yields the completions of steps, and adds up what the steps did."""
    for output in outputs:
        metrics.add(output.metrics)
        if output.completions:
            yield list(output.completions)


def _not_ended(group: Group, ended: Collection[str]) -> list[Planned]:
    """Returns the group's prompts that are left, with their spans, in order."""
    planned = zip(group.prompts, group.spans, strict=True)
    return [(prompt, spans) for prompt, spans in planned if prompt.id not in ended]


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
