"""The model families: which code reads, writes and runs a model.

A family is a folder beside this file, whose `family.py` describes it as one value.
"""

from isara_jax.errors import InputError
from isara_jax.models.formats import ConfigReader, Family
from isara_jax.models.llama import LLAMA, Llama, LlamaConfig
from isara_jax.models.opt import OPT, Opt, OptConfig

ModelConfig = LlamaConfig | OptConfig
LanguageModel = Llama | Opt

FAMILIES: tuple[Family, ...] = (LLAMA, OPT)
BY_MODEL_TYPE = {name: family for family in FAMILIES for name in family.model_types}


def family_named(a: ConfigReader) -> Family:
    """Returns the family of a `config.json`.

    Raises:
      InputError: its model_type is unknown.
    """
    name = a.values.get("model_type")
    if not isinstance(name, str) or name not in BY_MODEL_TYPE:
        raise a.error("model_type", name, f"expected one of {', '.join(BY_MODEL_TYPE)}")
    return BY_MODEL_TYPE[name]


def family_of(config: ModelConfig) -> Family:
    """Returns the family whose model has such a configuration."""
    return next(family for family in FAMILIES if type(config) is family.config_type)


def unknown_tensor(config: ModelConfig, name: str) -> InputError:
    """Returns the error for a tensor that the family does not have."""
    return InputError(
        f"the tensor {name!r} is unknown to {family_of(config).label} of "
        f"{config.layers} layers"
    )
