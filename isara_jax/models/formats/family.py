"""What a model family is to the code that reads, writes and runs its models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.formats.tensor_map import TensorMap
from isara_jax.models.formats.tensor_source import TensorSource
from isara_jax.runtime import GgufFile


@dataclass(frozen=True, kw_only=True)
class GgufFormat:
    """How a family's models are read from a GGUF file.

    `architecture` is the file's `general.architecture`. `open_tensors` takes the
    configuration that `read_config` returns, and names the tensors as Hugging Face
    does.
    """

    architecture: str
    read_config: Callable[[GgufFile], Any]
    open_tensors: Callable[[GgufFile, Any], TensorSource]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family's model, both directions of its Hugging Face format, and its GGUF.

    `model_types` are those of a `config.json`; `label` is what messages call a model.
    """

    label: str
    model_types: tuple[str, ...]
    config_type: type
    build: Callable[..., Any]
    config_from_hf: Callable[[ConfigReader], Any]
    config_to_hf: Callable[..., dict[str, Any]]
    tensor_maps: Callable[[Any], tuple[TensorMap, ...]]
    gguf: GgufFormat | None = None
