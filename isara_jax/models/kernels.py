"""A layer's projections: by plain kernels, quantised ones, or adapted ones.

What a `nnx.Param` of a kernel holds decides: an array, a `qwix.QArray`, or `Adapted`,
which has one of the two as its base. All are pytrees whose arrays lead with the axis of
layers, so a model that holds them is stacked, scanned and placed like any other.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from jaxtyping import Array, Float, Shaped

from isara_jax.runtime.mesh import Mesh, abstract_on, model_shardings

Quantisation = Literal["int8", "nf4"]

# Weights that share a scale in nf4, as in QLoRA (Dettmers et al. 2023), or the greatest
# power of two below that divides the axis.
BLOCK = 64


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A kernel W + scale * A B of low rank beside it (Hu et al. 2021).

    The base is an array or a `qwix.QArray`. A ends with the axis of the rank, B begins
    with it, behind that of layers.
    """

    base: Any
    a: Float[Any, "..."]
    b: Float[Any, "..."]
    scale: float = field(metadata={"static": True})


def project(x: Float[Array, "B T *inputs"], kernel: nnx.Variable) -> Array:
    """Multiplies by a layer's kernel, [*inputs, *outputs]; returns [B, T, *outputs]."""
    return _product(x, kernel.get_value())


def _product(x: Array, kernel: Any) -> Array:
    if isinstance(kernel, Adapted):
        low = _plain_product(x, kernel.a) * kernel.scale
        return _product(x, kernel.base) + _plain_product(low, kernel.b)
    if isinstance(kernel, qwix.QArray):
        # The backward pass widens the kernel again: kept for it, the wide ones of all
        # layers would be the model that quantising has spared.
        return jax.checkpoint(_quantised_product)(x, kernel)
    return _plain_product(x, kernel)


def _quantised_product(x: Array, kernel: qwix.QArray) -> Array:
    return _plain_product(x, dequantised(kernel, x.dtype))


def _plain_product(x: Array, kernel: Array) -> Array:
    """Multiplies as one matrix product over all inputs.

    As a product over two axes, XLA on CPU turns the kernel around in memory at every
    step.
    """
    inputs = x.ndim - 2
    if inputs > 1:
        x = x.reshape(*x.shape[:2], -1)
        kernel = kernel.reshape(-1, *kernel.shape[inputs:])
    return jnp.tensordot(x, kernel, axes=1)


def quantised(
    kernel: nnx.Variable, kind: Quantisation, *, inputs: int, mesh: Mesh
) -> nnx.Variable:
    """Returns the parameter quantised, on the mesh; an abstract one stays abstract."""
    quantise = partial(_quantised, kind=kind, inputs=inputs)
    value = kernel.get_value()
    shape = kernel.replace(jax.eval_shape(quantise, value))
    if not isinstance(value, jax.Array):
        return abstract_on(shape, mesh)
    places = model_shardings(shape, mesh).get_value()
    return kernel.replace(jax.jit(quantise, out_shardings=places)(value))


def _quantised(
    stack: Shaped[Array, "L ..."], *, kind: Quantisation, inputs: int
) -> qwix.QArray:
    """Quantises the kernels of all layers, whose first axes are their inputs.

    int8 has a scale for every output, nf4 one for each block of the last input axis;
    both are fp32. Blocks lie along an axis, not across the flat kernel, so that the
    scales have the kernel's axes too and are split over a mesh like it.
    """

    def one(kernel: Array) -> qwix.QArray:
        wide, outputs = kernel.astype(jnp.float32), range(inputs, kernel.ndim)
        if kind == "int8":
            return qwix.quantize(wide, jnp.int8, channelwise_axes=tuple(outputs))
        last = inputs - 1
        return qwix.quantize(
            wide,
            "nf4",
            channelwise_axes=(*range(last), *outputs),
            tiled_axes={last: math.gcd(kernel.shape[last], BLOCK)},
        )

    return jax.lax.map(one, stack)  # one layer in fp32 at a time


def dequantised(kernel: qwix.QArray, dtype: Any) -> Array:
    """Returns a kernel as the products see it."""
    return qwix.dequantize(kernel).astype(dtype)


def plain(stack: Adapted | qwix.QArray, dtype: Any) -> Shaped[Array, "L ..."]:
    """Returns one kernel a layer in the place of all, each computed in fp32."""

    def one(kernel: Any) -> Array:
        if isinstance(kernel, qwix.QArray):
            return dequantised(kernel, dtype)
        base = kernel.base
        if isinstance(base, qwix.QArray):
            base = dequantised(base, jnp.float32)
        a, b = kernel.a.astype(jnp.float32), kernel.b.astype(jnp.float32)
        both = jnp.tensordot(a, b, axes=1)
        return (base.astype(jnp.float32) + kernel.scale * both).astype(dtype)

    return jax.lax.map(one, stack)
