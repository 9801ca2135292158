"""Generates a step's completions into a records file, and resumes a stopped step.

Records are appended as samples end, and sorted by id when all are there. A sample does
not depend on those beside it, so the records of a killed run are kept and the rest is
generated as if nothing had happened.
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
from isara_jax.models import Decoder
from isara_jax.prompts import Prompt, Template
from isara_jax.runtime import Mesh, Tokenizer, progress
from isara_jax.runtime.files import Records
from isara_jax.runtime.hardware import trim_malloc


class SampleKind(IntEnum):
    """What a sample is for; folded into its key."""

    QUESTION = 0
    ANSWER = 1
    EVALUATION = 2


@dataclass(frozen=True, kw_only=True)
class Generator:
    """The engine's settings and the random seed, which all steps of a run share.

    Attributes:
      slots: how many prompts are continued at once, at most.
      context: the most tokens of a prompt and its continuation.
      check: called while generating; may raise to stop the run.
      on_metrics: called with a step's name and the engine's metrics when it ends.
      compaction_parity: what the run's engines know of batch compaction, see `Engine`.
    """

    mesh: Mesh
    seed: int
    slots: int
    context: int
    stop_criteria: StopCriteria
    check: Callable[[], None]
    on_metrics: Callable[[str, EngineMetrics], None] | None = None
    compaction_parity: MutableMapping[Hashable, bool] = field(
        default_factory=dict, compare=False, repr=False
    )

    def engine(self, model: Decoder) -> Engine:
        """Makes the engine of a model, whose weights must not change after that."""
        return Engine(
            model=model,
            mesh=self.mesh,
            slots=self.slots,
            context=self.context,
            check=self.check,
            compaction_parity=self.compaction_parity,
        )

    def key(self, *, round_index: int, kind: SampleKind) -> Key[Array, ""]:
        """Returns fold_in(seed, round, kind); the engine folds in the sample index."""
        key = jax.random.fold_in(jax.random.key(self.seed), round_index)
        return jax.random.fold_in(key, int(kind))


def make_stop_criteria(tokenizer: Tokenizer, template: Template) -> StopCriteria:
    """Returns what ends a continuation: EOS, or a stop string of the template."""
    return StopCriteria(
        eos=tokenizer.eos, stops=template.stops, decode=tokenizer.decode
    )


def make_request(prompt: Prompt) -> Request:
    """Returns what the engine is asked to continue."""
    return Request(
        id=prompt.id, sample_index=prompt.sample_index, token_ids=prompt.token_ids
    )


def generate_to_records(
    records: Records,
    prompts: Sequence[Prompt],
    *,
    model: Callable[[], Decoder],
    generator: Generator,
    sampling_params: SamplingParams,
    round_index: int,
    kind: SampleKind,
    stage: str,
    to_record: Callable[[Completion], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Generates the samples that the records lack; returns all records sorted by id.

    `model` is called only if a sample is missing. `to_record` makes a completion a
    record with the prompt's id.

    Raises:
      InputError: a prompt and its continuation do not fit the model's context.
    """
    done = _recorded_ids(records, {prompt.id for prompt in prompts})
    if len(done) < len(prompts):
        metrics = EngineMetrics()
        batches = generator.engine(model()).generate(
            [make_request(prompt) for prompt in prompts],
            sampling_params=sampling_params,
            stop_criteria=generator.stop_criteria,
            key=generator.key(round_index=round_index, kind=kind),
            done=done,
            metrics=metrics,
        )
        with progress(
            stage, total=len(prompts), done=len(done), unit="samples"
        ) as advance:
            for completions in batches:
                records.append(to_record(completion) for completion in completions)
                advance(len(completions))
        trim_malloc()
        if generator.on_metrics is not None:
            generator.on_metrics(stage, metrics)
    return records.sort(by="id")


def completion_fields(completion: Completion, *, parent: str) -> dict[str, Any]:
    """Returns the fields that every sample's record has."""
    return {
        "prompt_tokens": completion.prompt_tokens,
        "new_tokens": len(completion.tokens),
        "log_probability": completion.log_probability,
        "finish": completion.finish_reason,
        "parent": parent,
    }


def _recorded_ids(records: Records, wanted: Collection[str]) -> set[str]:
    """Returns the ids of the records, after those of other prompts are dropped."""
    found = records.read()
    kept = [record for record in found if record.get("id") in wanted]
    if len(kept) < len(found):
        records.replace(kept)
    return {str(record["id"]) for record in kept}
