"""The model families: which code reads, writes and runs a model.

A family is a folder beside this file, whose `family.py` describes it as one value. A
new one is that folder and its entry in `FAMILIES`.
"""

from isara_jax.models.decoder import DecoderConfig
from isara_jax.models.formats import ConfigReader, Family, GgufFormat
from isara_jax.models.llama import LLAMA
from isara_jax.models.opt import OPT
from isara_jax.runtime import GgufFile

FAMILIES: tuple[Family, ...] = (LLAMA, OPT)
BY_MODEL_TYPE = {name: family for family in FAMILIES for name in family.model_types}
GGUF_BY_ARCHITECTURE = {
    family.gguf.architecture: family.gguf for family in FAMILIES if family.gguf
}


def family_named(a: ConfigReader) -> Family:
    """Returns the family of a `config.json`.

    Raises:
      InputError: its model_type is unknown.
    """
    name = a.values.get("model_type")
    if not isinstance(name, str) or name not in BY_MODEL_TYPE:
        raise a.error("model_type", name, f"expected one of {', '.join(BY_MODEL_TYPE)}")
    return BY_MODEL_TYPE[name]


def family_of(config: DecoderConfig) -> Family:
    """Returns the family whose models have such a configuration."""
    return next(family for family in FAMILIES if type(config) is family.config_type)


def gguf_format(file: GgufFile) -> GgufFormat:
    """Returns how the file's family is read from GGUF.

    Raises:
      InputError: its architecture is of no family that is.
    """
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in GGUF_BY_ARCHITECTURE:
        a = ConfigReader(path=file.path, values=file.metadata)
        expected = " or ".join(repr(known) for known in GGUF_BY_ARCHITECTURE)
        raise a.error("general.architecture", name, f"expected {expected}")
    return GGUF_BY_ARCHITECTURE[name]
