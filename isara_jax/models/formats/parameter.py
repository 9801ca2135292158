"""Reads a parameter's tensors from a model's files onto the mesh."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from isara_jax.models.formats.tensor_map import TensorMap
from isara_jax.models.formats.tensor_source import TensorSource
from isara_jax.runtime import Mesh, logical_axes, sharding_for


def read_parameter(
    source: TensorSource, tensor: TensorMap, variable: Any, *, mesh: Mesh
) -> jax.Array:
    """Reads a parameter onto the devices, layer by layer where it has layers.

    `variable` holds the parameter's shape and dtype, and names its axes.

    Raises:
      InputError: a tensor of it is damaged or mis-shaped.
    """
    target, axes = variable.get_value(), logical_axes(variable)
    sharding = sharding_for(axes, target.shape, mesh)
    if not tensor.stacked:
        value = _read(source, tensor.name, target.shape, tensor=tensor)
        return jax.device_put(value.astype(target.dtype), sharding)
    shape = target.shape[1:]
    of_layer = sharding_for(axes[1:], shape, mesh)
    layers = (
        _read(source, name, shape, tensor=tensor).astype(target.dtype)
        for name in tensor.names(target.shape[0])
    )
    first = next(layers)  # of the shape that config.json says: there is such a size
    stack = jnp.zeros(target.shape, target.dtype, device=sharding)
    for number, layer in enumerate(itertools.chain([first], layers)):
        on_devices = jax.device_put(layer, of_layer)
        stack = _with_layer(stack, on_devices, number, sharding=sharding)
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


def _read(
    source: TensorSource, name: str, shape: tuple[int, ...], *, tensor: TensorMap
) -> np.ndarray:
    stored = source.read_shaped(name, tensor.hf_shape(shape))
    return tensor.from_hf(stored, shape)
