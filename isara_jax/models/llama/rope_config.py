"""Reads and writes the rotary positions of a `config.json`.

Older files have `rope_theta` and `rope_scaling`, newer ones `rope_parameters`.
"""

from typing import Any

from isara_jax.models.formats import ConfigReader
from isara_jax.models.layers import RopeScaling
from isara_jax.models.llama.model import LlamaConfig

LLAMA3 = {
    "low_freq_factor": "low",
    "high_freq_factor": "high",
    "original_max_position_embeddings": "original_context",
}


def rope_base(a: ConfigReader) -> float:
    """Returns the base of the frequencies.

    Raises:
      InputError: it is no number above 0.
    """
    outer = a.positive_float("rope_theta", default=10_000.0)
    inner = _inner(a, "rope_parameters")
    return inner.positive_float("rope_theta", default=outer) if inner else outer


def rope_scaling(a: ConfigReader) -> RopeScaling | None:
    """Returns how the frequencies are scaled, or nothing.

    Raises:
      InputError: the kind of scaling is not implemented, or a number of it is missing
        or out of its bounds.
    """
    name = "rope_parameters" if a.values.get("rope_parameters") else "rope_scaling"
    inner = _inner(a, name)
    if inner is None:
        return None
    kind = inner.values.get("rope_type", inner.values.get("type", "default"))
    allowed = {"rope_type", "type", "rope_theta"}
    if kind == "default":
        inner.validate_known(allowed)
        return None
    if kind == "linear":
        inner.validate_known(allowed | {"factor"})
        return RopeScaling(kind="linear", factor=inner.positive_float("factor"))
    if kind != "llama3":
        raise a.error(
            name, inner.values, "expected rope_type default, linear or llama3"
        )
    inner.validate_known(allowed | {"factor"} | LLAMA3.keys())
    low, high = (
        inner.positive_float("low_freq_factor"),
        inner.positive_float("high_freq_factor"),
    )
    if high <= low:
        raise inner.error("high_freq_factor", high, f"expected more than {low}")
    return RopeScaling(
        kind="llama3",
        factor=inner.positive_float("factor"),
        low=low,
        high=high,
        original_context=inner.positive_int("original_max_position_embeddings"),
    )


def rope_attributes(config: LlamaConfig) -> dict[str, Any]:
    """Writes `rope_parameters`."""
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": config.rope_base}
    attributes = {
        "rope_type": scaling.kind,
        "rope_theta": config.rope_base,
        "factor": scaling.factor,
    }
    if scaling.kind == "llama3":
        attributes |= {name: getattr(scaling, own) for name, own in LLAMA3.items()}
    return attributes


def _inner(a: ConfigReader, name: str) -> ConfigReader | None:
    value = a.values.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise a.error(name, value, "expected a JSON object")
    return ConfigReader(path=a.path, values=value)
