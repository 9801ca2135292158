"""A layer's linear maps, by dense weights, quantised ones, or weights with adapters.

What the `nnx.Param` of a weight holds decides: an array, a `qwix.QArray`, or a
`LoraWeight`, whose base is one of the two. All are pytrees whose arrays lead with the
axis of layers, so a model that holds them is scanned and sharded like any other.
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from jaxtyping import Array, Float, Shaped

from isara_jax.runtime import Mesh, abstract_on, model_shardings

Quantisation = Literal["int8", "nf4"]

# Weights that share a scale in nf4, as in QLoRA (Dettmers et al. 2023), or the greatest
# power of two below that divides the axis.
BLOCK = 64


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LoraWeight:
    """A kernel W + scale * A B of low rank beside it (Hu et al. 2021).

    The base is an array or a `qwix.QArray`. A is [r, *inputs], B [r, *outputs], behind
    the axis of layers. With the rank first, XLA on CPU computes the gradient by A of
    2,048 positions in a fifth of the time.
    """

    base: Any
    a: Any
    b: Any
    scale: float = field(metadata={"static": True})


def linear(x: Float[Array, "B T *inputs"], kernel: nnx.Variable) -> Array:
    """Multiplies by a layer's kernel, [*inputs, *outputs]; returns [B, T, *outputs]."""
    value = kernel.get_value()
    if isinstance(value, LoraWeight):
        return _adapted_product(x, value)
    if isinstance(value, qwix.QArray):
        # The backward pass widens the kernel again: kept for it, the wide ones of all
        # layers would be the model that quantising has spared.
        return jax.checkpoint(_widened_product)(x, value)
    return _product(x, value)


@jax.custom_vjp
def _adapted_product(x: Array, kernel: LoraWeight) -> Array:
    """Multiplies by the sum, with a gradient by A, B and the inputs, not by the base.

    The sum is made anew in both passes: a layer's kernel is smaller than what goes
    through it, so this costs less than two products more and adding their results. And
    what is trained is, rounding included, what a merged model computes.
    """
    return _widened_product(x, kernel)


def _adapted_forward(x: Array, kernel: LoraWeight) -> tuple[Array, Any]:
    return _widened_product(x, kernel), (x, kernel)


def _adapted_backward(kept: Any, gradient: Array) -> tuple[Array, LoraWeight]:
    # All as products of two matrices: over more axes, XLA on CPU takes longer.
    x, kernel = kept
    inputs, outputs = (math.prod(array.shape[2:]) for array in (x, gradient))
    wide = dequantize(kernel, x.dtype).reshape(inputs, outputs)
    a, b = kernel.a.reshape(-1, inputs), kernel.b.reshape(-1, outputs)
    given, rows = gradient.reshape(-1, outputs), x.reshape(-1, inputs)
    by_low = kernel.scale * (given @ b.T)
    low = kernel.scale * (rows @ a.T)
    by_kernel = replace(
        kernel,
        base=None,
        a=(by_low.T @ rows).reshape(kernel.a.shape),
        b=(low.T @ given).reshape(kernel.b.shape),
    )
    return (given @ wide.T).reshape(x.shape), by_kernel


_adapted_product.defvjp(_adapted_forward, _adapted_backward)


def _widened_product(x: Array, kernel: LoraWeight | qwix.QArray) -> Array:
    return _product(x, dequantize(kernel, x.dtype))


def _product(x: Array, kernel: Array) -> Array:
    """Multiplies as a product of two matrices, in the backward pass too.

    As one over two axes, XLA on CPU turns the kernel around in memory at every step,
    and sums a kernel's gradient over rows and positions at half the speed.
    """
    inputs, outputs = math.prod(x.shape[2:]), kernel.shape[x.ndim - 2 :]
    flat = x.reshape(-1, inputs) @ kernel.reshape(inputs, -1)
    return flat.reshape(*x.shape[:2], *outputs)


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


def dequantize(kernel: LoraWeight | qwix.QArray, dtype: Any) -> Array:
    """Returns a layer's kernel as one array, computed in fp32."""
    if isinstance(kernel, qwix.QArray):
        return qwix.dequantize(kernel).astype(dtype)
    base = kernel.base
    if isinstance(base, qwix.QArray):
        base = qwix.dequantize(base)
    # Widened first: XLA on CPU has no product of bf16 matrices that yields fp32 here.
    a, b = kernel.a.astype(jnp.float32), kernel.b.astype(jnp.float32)
    both = jnp.tensordot(a, b, axes=(0, 0))
    return (base.astype(jnp.float32) + kernel.scale * both).astype(dtype)


def plain(stack: LoraWeight | qwix.QArray, dtype: Any) -> Shaped[Array, "L ..."]:
    """Returns the kernels of all layers as one array."""
    return jax.lax.map(partial(dequantize, dtype=dtype), stack)
