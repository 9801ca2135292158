"""Which model is run, and how: precision, devices, randomness."""

from dataclasses import dataclass, field
from typing import Literal

from isara_jax.errors import FieldError


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """The pretrained model of a command, and the adapter that it begins with."""

    model: str = field(
        default="",
        metadata={
            "help": "the pretrained model: a Hugging Face folder, a .gguf file, a hub "
            "id, or package:NAME for weights that a Python distribution ships"
        },
    )
    adapter: str = field(
        default="",
        metadata={
            "help": "a folder or hub id of an adapter in PEFT's format, which is "
            "merged into `model`; empty: none"
        },
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise FieldError("model", self.model, "must be given")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How every command runs a model: precision, devices, random seed."""

    seed: int = field(default=42, metadata={"help": "seed of all randomness"})
    dtype: Literal["float32", "bfloat16"] = field(
        default="bfloat16",
        metadata={
            "help": "of weights and arithmetic; finetuning keeps fp32 master weights"
        },
    )
    mesh_data: int = field(
        default=-1,
        metadata={
            "help": "devices over which batches and parameter shards are split; -1: "
            "all that `mesh_model` leaves",
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
        if self.mesh_model < 1:
            raise FieldError("mesh_model", self.mesh_model, "must be at least 1")
        if self.mesh_data != -1 and self.mesh_data < 1:
            raise FieldError("mesh_data", self.mesh_data, "must be -1 or at least 1")
        if not 0 <= self.seed < 2**32:
            raise FieldError("seed", self.seed, "must be from 0 to 2^32 - 1")
