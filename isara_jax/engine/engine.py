"""The engine: a model that continues prompts of token ids, many at a time.

A sample is fixed by the model, its prompt and its own key: neither its slot nor what is
decoded beside it decides anything. The host looks at the slots once every few tokens;
what was decoded past a stop string is dropped.
"""

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

import jax
from jaxtyping import Array, Key

from isara_jax.engine.beam import beam_backend
from isara_jax.engine.continuous_batching import (
    Generation,
    StepOutput,
    continuous_batching,
)
from isara_jax.engine.kv_cache import LayerBlocks, make_layer_blocks, rows_within
from isara_jax.engine.metrics import EngineMetrics
from isara_jax.engine.prefill import empty_prefix_cache
from isara_jax.engine.request import Request
from isara_jax.engine.sampling import Completion, SamplingParams, StopCriteria
from isara_jax.engine.scheduler import (
    PlannedRequest,
    PrefixGroup,
    plan_groups,
    rows_that_fit,
)
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
        requests: Sequence[Request],
        *,
        sampling_params: SamplingParams,
        stop_criteria: StopCriteria,
        key: Key[Array, ""],
        done: Collection[str] = (),
        metrics: EngineMetrics | None = None,
    ) -> Iterator[list[Completion]]:
        """Yields the completions of the requests as they end.

        Each sample's key is folded from `key` and its index. Requests whose ids are
        `done` are left out; the others run in the programs that they would have run in
        with them. What the engine does is added to `metrics`.

        Raises:
          InputError: a prompt and its continuation do not fit the model's context.
        """
        generation = Generation(
            layer_blocks=self.layer_blocks,
            mesh=self.mesh,
            sampling_params=sampling_params,
            stop_criteria=stop_criteria,
            key=key,
            check=self.check,
            parity=self.compaction_parity,
        )
        groups = self._plan_groups(requests, sampling_params)
        outputs = self._continuous(groups, generation, done=done)
        return _counted(outputs, EngineMetrics() if metrics is None else metrics)

    def _continuous(
        self,
        groups: Sequence[PrefixGroup],
        generation: Generation,
        *,
        done: Collection[str],
    ) -> Iterator[StepOutput]:
        """Generates group by group, in fewer slots where memory turns out too short."""
        prefix_cache, ended = None, set(done)
        for planned_group in groups:
            group = planned_group
            while left := _not_ended(group, ended):
                if prefix_cache is None:
                    prefix_cache = empty_prefix_cache(
                        self.layer_blocks,
                        longest=_prefix_cache_len(groups),
                        mesh=self.mesh,
                        backend=beam_backend(self.mesh) if group.beams > 1 else None,
                    )
                try:
                    for output in continuous_batching(
                        generation, group, prefix_cache, requests=left
                    ):
                        prefix_cache = output.prefix_cache
                        ended.update(c.id for c in output.completions)
                        yield output
                except jax.errors.JaxRuntimeError as error:
                    rows = _fewer_rows(group.rows, error, mesh=self.mesh)
                    group, prefix_cache = replace(group, rows=rows), None

    def _plan_groups(
        self, requests: Sequence[Request], sampling_params: SamplingParams
    ) -> tuple[PrefixGroup, ...]:
        """Plans with as many slots as the engine has, or as memory can hold.

        Where memory is short, a resumed run may have fewer slots than an undisturbed
        one, and differ from it in the last bits.
        """
        within = partial(
            plan_groups,
            requests,
            row_multiple=self.mesh.shape["data"],
            max_new_tokens=sampling_params.max_new_tokens,
            context=self.context,
            beams=sampling_params.beams,
        )
        groups = within(slots=self.slots)
        fits = [
            (rows_that_fit(self.layer_blocks, group, mesh=self.mesh), group.rows)
            for group in groups
        ]
        short = [(rows, wanted) for rows, wanted in fits if rows < wanted]
        if not short:
            return groups
        fitting, wanted = min(short)
        log(f"memory has room for {fitting} slots, not {wanted}")
        return within(slots=fitting * sampling_params.beams)


def _counted(
    outputs: Iterator[StepOutput], metrics: EngineMetrics
) -> Iterator[list[Completion]]:
    """Yields the completions of steps, and adds up what the steps did."""
    for output in outputs:
        metrics.add(output.metrics)
        if output.completions:
            yield list(output.completions)


def _not_ended(group: PrefixGroup, ended: Collection[str]) -> list[PlannedRequest]:
    """Returns the group's requests that are left, in their order."""
    return [planned for planned in group.planned if planned.request.id not in ended]


def _fewer_rows(rows: int, error: jax.errors.JaxRuntimeError, *, mesh: Mesh) -> int:
    """Returns half of the slots, if it was memory for them that lacked."""
    multiple = mesh.shape["data"]
    if "RESOURCE_EXHAUSTED" not in str(error) or rows <= multiple:
        raise error
    fewer = rows_within(rows // 2, multiple=multiple)
    log(f"memory has no room for {rows} slots: going on with {fewer}")
    return fewer


def _prefix_cache_len(groups: Sequence[PrefixGroup]) -> int:
    """Returns the positions that are copied from the prefix cache at most."""
    return max(
        max(
            group.longest_prompt,
            group.shared_len + group.max_len,
            group.max_shared_len,
        )
        for group in groups
    )
