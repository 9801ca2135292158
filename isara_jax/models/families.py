"""The model families: which code reads, writes and runs a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isara_jax.errors import InputError
from isara_jax.models.formats import ConfigReader, TensorMap
from isara_jax.models.llama import Llama, LlamaConfig, huggingface as llama_format
from isara_jax.models.opt import Opt, OptConfig, huggingface as opt_format

ModelConfig = LlamaConfig | OptConfig
LanguageModel = Llama | Opt


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family's model and its two directions of Hugging Face's format."""

    build: Callable[..., Any]
    config_from_hugging_face: Callable[[ConfigReader], Any]
    config_to_hugging_face: Callable[..., dict[str, Any]]
    tensor_maps: Callable[[Any], tuple[TensorMap, ...]]


LLAMA = Family(
    build=Llama,
    config_from_hugging_face=llama_format.config_from_hugging_face,
    config_to_hugging_face=llama_format.config_to_hugging_face,
    tensor_maps=llama_format.tensor_maps,
)
OPT = Family(
    build=Opt,
    config_from_hugging_face=opt_format.config_from_hugging_face,
    config_to_hugging_face=opt_format.config_to_hugging_face,
    tensor_maps=opt_format.tensor_maps,
)
# By the `model_type` of a config.json.
FAMILIES = {"llama": LLAMA, "mistral": LLAMA, "opt": OPT}


def family_named(a: ConfigReader) -> Family:
    """Returns the family of a `config.json`.

    Raises:
      InputError: its model_type is unknown.
    """
    kind = a.values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise a.error("model_type", kind, f"expected one of {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def family_of(config: ModelConfig) -> Family:
    """Returns the family whose model has such a configuration."""
    return LLAMA if isinstance(config, LlamaConfig) else OPT


def unknown_tensor(config: ModelConfig, name: str) -> InputError:
    """Returns the error for a tensor that the family does not have."""
    kind = "a LLaMA" if isinstance(config, LlamaConfig) else "an OPT"
    return InputError(
        f"the tensor {name!r} is unknown to {kind} of {config.layers} layers"
    )
