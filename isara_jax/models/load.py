"""Builds a model from files, one parameter at a time, straight into its shardings."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from isara_jax.errors import InputError
from isara_jax.models import llama_format
from isara_jax.models.attributes import Attributes
from isara_jax.models.families import (
    LanguageModel,
    ModelConfig,
    family_named,
    family_of,
    unknown_tensor,
)
from isara_jax.models.tensor_format import TensorFormat
from isara_jax.models.weights import (
    GGUF_HEAD,
    Weights,
    gguf_metadata,
    open_weights,
    read_gguf,
)
from isara_jax.runtime.mesh import Mesh, model_shardings
from isara_jax.workdir import read_json

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# In the card's front matter, which the second `---` ends; the first where it is a list.
LICENCE_OF_CARD = re.compile(
    r"\A---\n(?:(?!---).*\n)*?license:\s*(?:-\s+|\[\s*)?['\"]?(\w[\w.-]*)"
)


def load_config(source: Path) -> ModelConfig:
    """Reads the shape of the model in a Hugging Face folder or a GGUF file.

    Raises:
      InputError: the architecture or an attribute is unknown, or the file is damaged.
    """
    if source.suffix == ".gguf":
        reader = read_gguf(source)
        return llama_format.config_from_gguf(
            Attributes(place=source, values=gguf_metadata(reader, source)),
            tied_head=all(tensor.name != GGUF_HEAD for tensor in reader.tensors),
        )
    path = source / "config.json"
    if not path.is_file():
        raise InputError(f"{source}: no config.json in the folder")
    attributes = read_json(path)
    if not isinstance(attributes, dict):
        raise InputError(f"{path}: expected a JSON object")
    a = Attributes(place=path, values=attributes)
    config: ModelConfig = family_named(a).config_from_hugging_face(a)
    return config


def load_model(source: Path, *, dtype: str, mesh: Mesh) -> LanguageModel:
    """Reads the model in a Hugging Face folder or a GGUF file.

    Host memory holds the largest stacked parameter besides what the devices hold.

    Raises:
      InputError: as `load_config`, or a tensor is missing, unknown or mis-shaped.
    """
    config = load_config(source)
    weights = open_weights(source, heads=config.heads, kv_heads=config.kv_heads)
    abstract = abstract_model(config, dtype=dtype)
    formats = family_of(config).tensor_formats(config)
    _refuse_other_tensors(weights, formats, config)
    shardings = model_shardings(abstract, mesh)
    values = {
        tensor.path: jax.device_put(
            _stacked(weights, tensor, _at(abstract, tensor.path)),
            _at(shardings, tensor.path).get_value(),
        )
        for tensor in formats
    }
    return _filled(abstract, values)


def load_licence(source: Path) -> str:
    """Returns the licence that a GGUF file or a model card states, or nothing."""
    if source.suffix == ".gguf":
        metadata = gguf_metadata(read_gguf(source), source)
        return str(metadata.get("general.license", ""))
    card = source / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = LICENCE_OF_CARD.search(text)
    return found[1] if found else ""


def abstract_model(config: ModelConfig, *, dtype: str) -> LanguageModel:
    """Returns the model with shapes in the place of arrays."""
    build = family_of(config).build
    model: LanguageModel = jax.eval_shape(
        lambda: build(config, key=jax.random.key(0), dtype=DTYPES[dtype])
    )
    return model


def named_tensors(model: LanguageModel) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every tensor under its Hugging Face name, in that format's orientation."""
    for tensor in family_of(model.config).tensor_formats(model.config):
        value = _at(model, tensor.path).get_value()
        if not tensor.layered:
            yield tensor.name, tensor.theirs(np.asarray(value))
            continue
        for number in range(model.config.layers):
            yield tensor.name.format(number), tensor.theirs(np.asarray(value[number]))


def _stacked(weights: Weights, tensor: TensorFormat, variable: Any) -> np.ndarray:
    """Reads a parameter, all its layers under each other."""
    target = variable.get_value()
    if not tensor.layered:
        whole = _ours(weights, tensor.name, target.shape, tensor=tensor)
        return whole.astype(target.dtype)
    layers = (
        _ours(weights, tensor.name.format(number), target.shape[1:], tensor=tensor)
        for number in range(target.shape[0])
    )
    first = next(layers)  # of the shape that config.json says: there is such a size
    stacked = np.empty(target.shape, target.dtype)
    for number, layer in enumerate(itertools.chain([first], layers)):
        stacked[number] = layer
    return stacked


def _ours(
    weights: Weights, name: str, shape: tuple[int, ...], *, tensor: TensorFormat
) -> np.ndarray:
    read, expected = weights.read(name), tensor.their_shape(shape)
    if read.shape != expected:
        raise InputError(
            f"{weights.source}: the tensor {name!r} has the shape {list(read.shape)}, "
            f"expected {list(expected)}"
        )
    return tensor.ours(read, shape)


def _refuse_other_tensors(
    weights: Weights, formats: tuple[TensorFormat, ...], config: ModelConfig
) -> None:
    # One by one, so that an absurd count of layers ends at the first one missing.
    known = set()
    for tensor in formats:
        for number in range(config.layers if tensor.layered else 1):
            name = tensor.name.format(number)
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
    abstract: LanguageModel, values: dict[tuple[str, ...], jax.Array]
) -> LanguageModel:
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract)
    arrays = [values[tuple(key.name for key in path[:-1])] for path, _ in leaves]
    return jax.tree_util.tree_unflatten(structure, arrays)
