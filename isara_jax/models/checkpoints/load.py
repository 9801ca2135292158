"""Builds a model from files, one parameter at a time, straight into its shardings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isara_jax.errors import InputError
from isara_jax.models.families import (
    LanguageModel,
    ModelConfig,
    family_named,
    family_of,
    unknown_tensor,
)
from isara_jax.models.formats import (
    ConfigReader,
    Weights,
    _theirs,
    open_orbax,
    open_safetensors,
    placed,
)
from isara_jax.models.layers import Quantisation, quantised
from isara_jax.models.llama import load_gguf_config, open_gguf
from isara_jax.models.lora import open_peft, with_adapters
from isara_jax.runtime import ORBAX, Mesh, map_named_parameters
from isara_jax.runtime.files import read_json

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def load_config(source: Path) -> ModelConfig:
    """Reads the shape of the model in a Hugging Face folder or a GGUF file.

    Raises:
      InputError: the architecture or an attribute is unknown, or the file is damaged.
    """
    if source.suffix == ".gguf":
        return load_gguf_config(source)
    path = source / "config.json"
    if not path.is_file():
        raise InputError(f"{source}: no config.json in the folder")
    attributes = read_json(path)
    if not isinstance(attributes, dict):
        raise InputError(f"{path}: expected a JSON object")
    a = ConfigReader(place=path, values=attributes)
    config: ModelConfig = family_named(a).config_from_hf(a)
    return config


def load_model(
    source: Path,
    *,
    dtype: str,
    mesh: Mesh,
    quantise: Quantisation | None = None,
    adapter: Path | None = None,
) -> LanguageModel:
    """Reads the model in a folder of Hugging Face's or of Orbax's, or a GGUF file.

    Host memory holds the largest tensor of the file besides what the devices hold, and
    these one kernel of all layers besides what is quantised. An `adapter`, a folder of
    PEFT's, is added to the tensors as they are read.

    Raises:
      InputError: as `load_config`, or a tensor is missing, unknown or mis-shaped.
    """
    config = load_config(source)
    weights = open_model_weights(source, config, adapter=adapter)
    abstract = abstract_model(config, dtype=dtype)
    values = {}
    for tensor in family_of(config).tensor_maps(config):
        variable = _at(abstract, tensor.path)
        value = variable.replace(placed(weights, tensor, variable, mesh=mesh))
        if quantise and tensor.is_kernel:
            inputs = tensor.inputs(variable.get_value().shape[1:])
            value = quantised(value, quantise, inputs=inputs, mesh=mesh)
        values[tensor.path] = value
    return _filled(abstract, values)


def open_model_weights(
    source: Path, config: ModelConfig, *, adapter: Path | None = None
) -> Weights:
    """Opens the weights beside a configuration; they are the model's by their names.

    With an `adapter`, a folder of PEFT's, they are what it makes of them.

    Raises:
      InputError: a file is damaged, or a tensor is missing or unknown.
    """
    weights = open_weights(source, heads=config.heads, kv_heads=config.kv_heads)
    _refuse_other_tensors(weights, config)
    if adapter is None:
        return weights
    return with_adapters(weights, open_peft(adapter, config))


def read_tensors(
    weights: Weights, config: ModelConfig
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every tensor of the model as its file holds it, one at a time.

    Raises:
      InputError: a tensor is damaged or mis-shaped.
    """
    abstract = abstract_model(config, dtype="float32")
    for tensor in family_of(config).tensor_maps(config):
        shape = _at(abstract, tensor.path).get_value().shape
        own = shape[1:] if tensor.layered else shape
        for name in tensor.names(config.layers):
            yield name, _theirs(weights, name, own, tensor=tensor)


def abstract_model(config: ModelConfig, *, dtype: str) -> LanguageModel:
    """Returns the model with shapes in the place of arrays."""
    build = family_of(config).build
    model: LanguageModel = jax.eval_shape(
        lambda: build(config, key=jax.random.key(0), dtype=DTYPES[dtype])
    )
    return model


def named_tensors(model: LanguageModel) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every tensor under its Hugging Face name, in that format's orientation."""
    for tensor in family_of(model.config).tensor_maps(model.config):
        value = _at(model, tensor.path).get_value()
        for number, name in enumerate(tensor.names(model.config.layers)):
            own = value[number] if tensor.layered else value
            yield name, tensor.theirs(np.asarray(own))


def _refuse_other_tensors(weights: Weights, config: ModelConfig) -> None:
    # One by one, so that an absurd count of layers ends at the first one missing.
    known = set()
    for tensor in family_of(config).tensor_maps(config):
        for name in tensor.names(config.layers):
            if name not in weights.readers:
                raise InputError(f"{weights.source}: the tensor {name!r} is missing")
            known.add(name)
    if config.tied_head:
        known.add("lm_head.weight")
    unknown = sorted(set(weights.readers) - known)
    if unknown:
        raise InputError(f"{weights.source}: {unknown_tensor(config, unknown[0])}")


def _at(model: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        model = getattr(model, name)
    return model


def _filled(
    abstract: LanguageModel, values: dict[tuple[str, ...], Any]
) -> LanguageModel:
    return map_named_parameters(lambda path, _: values[path], abstract)


def open_weights(source: Path, *, heads: int, kv_heads: int) -> Weights:
    """Opens a GGUF file, or a folder of safetensors files or else of Orbax's.

    The head counts say how GGUF's interleaved Q and K rows are put back in order.
    """
    if source.suffix == ".gguf":
        return open_gguf(source, heads=heads, kv_heads=kv_heads)
    if (source / ORBAX).is_dir() and not any(source.glob("*.safetensors*")):
        return open_orbax(source / ORBAX)
    return open_safetensors(source)
