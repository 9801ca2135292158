"""Loads a model from its files, one parameter at a time, into its shardings."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from isara_jax.models.checkpoints.open import OpenedModel
from isara_jax.models.decoder import Decoder, DecoderConfig
from isara_jax.models.families import family_of
from isara_jax.models.formats import read_parameter
from isara_jax.models.layers import Quantization, quantize_weight
from isara_jax.runtime import Mesh, map_named_parameters

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def load_model(
    opened: OpenedModel,
    *,
    dtype: str,
    mesh: Mesh,
    quantize: Quantization | None = None,
) -> Decoder:
    """Reads the weights of an opened model onto the mesh.

    Host memory holds the largest tensor of the files besides what the devices hold. A
    linear weight of all layers is on the devices before it is quantized.

    Raises:
      InputError: a tensor is missing, unknown, damaged or mis-shaped.
    """
    abstract = abstract_model(opened.config, dtype=dtype)
    values = {}
    for tensor in family_of(opened.config).tensor_maps(opened.config):
        variable = parameter_at(abstract, tensor.path)
        read = read_parameter(opened.tensors, tensor, variable, mesh=mesh)
        value = variable.replace(read)
        if quantize and tensor.is_linear:
            value = quantize_weight(value, quantize, mesh=mesh)
        values[tensor.path] = value
    return map_named_parameters(lambda path, _: values[path], abstract)


def abstract_model(config: DecoderConfig, *, dtype: str) -> Decoder:
    """Returns the model with `jax.ShapeDtypeStruct` in the place of arrays."""
    build = family_of(config).build
    model: Decoder = jax.eval_shape(
        lambda: build(config, key=jax.random.key(0), dtype=DTYPES[dtype])
    )
    return model


def parameter_at(model: Decoder, path: tuple[str, ...]) -> nnx.Variable:
    """Returns the parameter at a path, such as `("layers", "q")`."""
    found: Any = model
    for name in path:
        found = getattr(found, name)
    parameter: nnx.Variable = found
    return parameter


def read_tensors(opened: OpenedModel) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every tensor of the model as its file holds it, one at a time.

    Raises:
      InputError: a tensor is damaged or mis-shaped.
    """
    config = opened.config
    abstract = abstract_model(config, dtype="float32")
    for tensor in family_of(config).tensor_maps(config):
        shape = parameter_at(abstract, tensor.path).get_value().shape
        stored = tensor.hf_shape(shape[1:] if tensor.stacked else shape)
        for name in tensor.names(config.layers):
            yield name, opened.tensors.read_shaped(name, stored)


def named_tensors(model: Decoder) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every tensor under its Hugging Face name, in that format's orientation."""
    for tensor in family_of(model.config).tensor_maps(model.config):
        value = parameter_at(model, tensor.path).get_value()
        for number, name in enumerate(tensor.names(model.config.layers)):
            own = value[number] if tensor.stacked else value
            yield name, tensor.to_hf(np.asarray(own))
