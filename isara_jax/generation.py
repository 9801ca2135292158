"""Runs a step's prompts through the engine into a records file, and picks up again.

Records are written as samples end, and put in the order of their ids when all are
there. A sample does not depend on those beside it; so what a killed run left is kept,
and the rest is sampled as if nothing had happened (DESIGN 5).
"""

from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import jax
from jaxtyping import Array, Key

from isara_jax.engine import (
    Completion,
    Engine,
    EngineMetrics,
    Request,
    SamplingParams,
    StopCriteria,
)
from isara_jax.examples import Example
from isara_jax.models import Decoder
from isara_jax.prompts import DemoOrder, Template, arranged, assemble, fitting
from isara_jax.runtime import Mesh, Tokenizer, progress
from isara_jax.runtime.files import Records
from isara_jax.runtime.hardware import trim_malloc


class Step(IntEnum):
    """What a sample is for; folded into its key."""

    QUESTIONS = 0
    ANSWERS = 1
    EVALUATION = 2


@dataclass(frozen=True, kw_only=True)
class OpenTurn:
    """A turn for the model to go on with, and the demonstrations found for it."""

    id: str
    number: int
    opening: str
    demos: Sequence[Example] = ()


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """What every step that samples shares.

    `check` may raise to stop the run; `report` takes a stage, and what was counted in
    it. `compaction_parity` is what its engines find out about their decode programs,
    each of which one of them asks about.
    """

    tokenizer: Tokenizer
    template: Template
    mesh: Mesh
    seed: int
    slots: int
    demo_tokens: int
    context: int
    check: Callable[[], None]
    demo_order: DemoOrder = "paper"
    report: Callable[[str, EngineMetrics], None] | None = None
    compaction_parity: MutableMapping[Hashable, bool] = field(
        default_factory=dict, compare=False, repr=False
    )

    def prompts(
        self, turns: Sequence[OpenTurn], *, new_tokens: int
    ) -> list[tuple[Request, tuple[str, ...]]]:
        """Writes a step's prompts, each with the ids of the demos that it holds.

        They leave room in the context for the open turn and `new_tokens` after it.
        """
        found = [self._fitting(turn, new_tokens=new_tokens) for turn in turns]
        return [
            (self._written(turn, demos), tuple(demo.origin for demo in demos))
            for turn, demos in zip(
                turns, arranged(found, order=self.demo_order), strict=True
            )
        ]

    def prompt(self, opening: str, *, id: str, number: int) -> Request:
        """Writes an open turn that has no demonstrations."""
        return self._written(OpenTurn(id=id, number=number, opening=opening), ())

    def _fitting(self, turn: OpenTurn, *, new_tokens: int) -> list[Example]:
        opening = self.tokenizer.encode(turn.opening)
        rest = len(self.tokenizer.bos) + len(opening) + new_tokens
        return fitting(
            turn.demos,
            template=self.template,
            encode=self.tokenizer.encode,
            budget=min(self.demo_tokens, self.context - rest),
        )

    def _written(self, turn: OpenTurn, demos: Sequence[Example]) -> Request:
        ids = assemble(
            demos, turn.opening, template=self.template, encode=self.tokenizer.encode
        )
        bos = self.tokenizer.bos
        tokens = ids if tuple(ids[: len(bos)]) == bos else [*bos, *ids]
        return Request(id=turn.id, sample_index=turn.number, token_ids=tuple(tokens))

    def answer_tokens(self, answer: str) -> tuple[int, ...]:
        """Returns an answer as it is trained and scored, its end included."""
        closing = self.tokenizer.encode(self.template.closing(answer))
        return (*closing, self.tokenizer.eos[0])

    def key(self, *, round_index: int, step: Step) -> Key[Array, ""]:
        """Returns fold_in(seed, round, step); the sample's number comes last."""
        key = jax.random.fold_in(jax.random.key(self.seed), round_index)
        return jax.random.fold_in(key, int(step))

    @property
    def stop_criteria(self) -> StopCriteria:
        """What ends a sample besides its length."""
        return StopCriteria(
            eos=self.tokenizer.eos,
            stops=self.template.stops,
            decode=self.tokenizer.decode,
        )

    def engine(self, model: Decoder) -> Engine:
        """Readies a model for writing; it is one set of weights for good."""
        return Engine(
            model=model,
            mesh=self.mesh,
            slots=self.slots,
            context=self.context,
            check=self.check,
            compaction_parity=self.compaction_parity,
        )


def sample_into(
    records: Records,
    prompts: Sequence[Request],
    *,
    model: Callable[[], Decoder],
    sampler: Sampler,
    sampling_params: SamplingParams,
    round_index: int,
    step: Step,
    stage: str,
    describe: Callable[[Completion], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Samples what the records do not hold yet; returns all of them in order of id.

    `model` is called only if something is left to sample.
    """
    done = _already_there(records, {prompt.id for prompt in prompts})
    if len(done) < len(prompts):
        metrics = EngineMetrics()
        written = sampler.engine(model()).generate(
            prompts,
            sampling_params=sampling_params,
            stop_criteria=sampler.stop_criteria,
            key=sampler.key(round_index=round_index, step=step),
            done=done,
            metrics=metrics,
        )
        with progress(
            stage, total=len(prompts), done=len(done), unit="samples"
        ) as advance:
            for completions in written:
                records.append(describe(completion) for completion in completions)
                advance(len(completions))
        trim_malloc()
        if sampler.report is not None:
            sampler.report(stage, metrics)
    return records.sort(by="id")


def sampled(completion: Completion, *, parent: str) -> dict[str, Any]:
    """Returns the fields that every sample's record has."""
    return {
        "prompt_tokens": completion.prompt_tokens,
        "new_tokens": len(completion.tokens),
        "log_probability": completion.log_probability,
        "finish": completion.finish,
        "parent": parent,
    }


def _already_there(records: Records, wanted: Collection[str]) -> set[str]:
    """Returns the ids of the records, after what is not of this step is dropped."""
    found = records.read()
    ours = [record for record in found if record.get("id") in wanted]
    if len(ours) < len(found):
        records.replace(ours)
    return {str(record["id"]) for record in ours}
