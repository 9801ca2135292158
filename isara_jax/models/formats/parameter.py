"""A parameter from its tensors in a file, placed on the mesh."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from isara_jax.errors import InputError
from isara_jax.models.formats.tensor_map import TensorMap
from isara_jax.models.formats.tensor_source import Weights
from isara_jax.runtime import Mesh, logical_axes, sharding_for


def placed(
    weights: Weights, tensor: TensorMap, variable: Any, *, mesh: Mesh
) -> jax.Array:
    """Reads a parameter onto the devices, layer by layer where it has layers.

    Raises:
      InputError: a tensor of it is damaged or mis-shaped.
    """
    target, words = variable.get_value(), logical_axes(variable)
    sharding = sharding_for(words, target.shape, mesh)
    if not tensor.layered:
        whole = _ours(weights, tensor.name, target.shape, tensor=tensor)
        return jax.device_put(whole.astype(target.dtype), sharding)
    shape = target.shape[1:]
    of_layer = sharding_for(words[1:], shape, mesh)
    layers = (
        _ours(weights, name, shape, tensor=tensor).astype(target.dtype)
        for name in tensor.names(target.shape[0])
    )
    first = next(layers)  # of the shape that config.json says: there is such a size
    stack = jnp.zeros(target.shape, target.dtype, device=sharding)
    for number, layer in enumerate(itertools.chain([first], layers)):
        placed = jax.device_put(layer, of_layer)
        stack = _with_layer(stack, placed, number, sharding=sharding)
    return stack


@partial(jax.jit, donate_argnums=0, static_argnames="sharding")
def _with_layer(
    stack: Shaped[Array, "L ..."],
    layer: Shaped[Array, "..."],
    number: Int[Array, ""] | int,
    *,
    sharding: Any,
) -> Shaped[Array, "L ..."]:
    """Writes a layer into the stack, in place."""
    filled = jax.lax.dynamic_update_index_in_dim(stack, layer, number, 0)
    return jax.lax.with_sharding_constraint(filled, sharding)


def _ours(
    weights: Weights, name: str, shape: tuple[int, ...], *, tensor: TensorMap
) -> np.ndarray:
    return tensor.ours(_theirs(weights, name, shape, tensor=tensor), shape)


def _theirs(
    weights: Weights, name: str, shape: tuple[int, ...], *, tensor: TensorMap
) -> np.ndarray:
    read, expected = weights.read(name), tensor.their_shape(shape)
    if read.shape != expected:
        raise InputError(
            f"{weights.source}: the tensor {name!r} has the shape {list(read.shape)}, "
            f"expected {list(expected)}"
        )
    return read
