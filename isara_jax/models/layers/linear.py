"""A layer's linear maps, by dense weights, quantized ones, or weights with adapters.

What the `nnx.Param` of a weight holds decides: an array, a `qwix.QArray`, or a
`LoraWeight`, whose base is one of the two. All are pytrees whose arrays lead with the
axis of layers, so a model that holds them is scanned and sharded like any other. The
metadata `inputs` of the `nnx.Param` says how many of a layer's axes are inputs.
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

Quantization = Literal["int8", "nf4"]

# Weights that share a scale in nf4, as in QLoRA (Dettmers et al. 2023), or the greatest
# power of two below that divides the axis.
BLOCK = 64


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LoraWeight:
    """A weight W + scale * A B, A and B of low rank (Hu et al. 2021).

    The base is an array or a `qwix.QArray`. A is [r, *inputs], B [r, *outputs], behind
    the axis of layers. With the rank first, XLA on CPU computes the gradient by A of
    2,048 positions in a fifth of the time.
    """

    base: Any
    a: Any
    b: Any
    scale: float = field(metadata={"static": True})


def is_linear(parameter: nnx.Variable) -> bool:
    """Whether a parameter is the weight of a linear map of a layer."""
    return "inputs" in parameter.get_metadata()


def input_axes(weight: nnx.Variable) -> int:
    """Returns how many axes of a layer's linear weight are inputs; they come first."""
    count: int = weight.get_metadata()["inputs"]
    return count


def linear(x: Float[Array, "B T *inputs"], weight: nnx.Variable) -> Array:
    """Multiplies by a layer's weight, [*inputs, *outputs]; returns [B, T, *outputs]."""
    value = weight.get_value()
    if isinstance(value, LoraWeight):
        return _lora_product(x, value)
    if isinstance(value, qwix.QArray):
        # The backward pass dequantizes again: kept for it, the dense weights of all
        # layers would be the model that quantizing has spared.
        return jax.checkpoint(_dense_product)(x, value)
    return _product(x, value)


@jax.custom_vjp
def _lora_product(x: Array, weight: LoraWeight) -> Array:
    """Multiplies by the sum, with a gradient by A, B and the inputs, not by the base.

    The sum is made anew in both passes: a layer's weight is smaller than what goes
    through it, so this costs less than two products more and adding their results. And
    what is trained is, rounding included, what a merged model computes.
    """
    return _dense_product(x, weight)


def _lora_forward(x: Array, weight: LoraWeight) -> tuple[Array, Any]:
    return _dense_product(x, weight), (x, weight)


def _lora_backward(kept: Any, gradient: Array) -> tuple[Array, LoraWeight]:
    # All as products of two matrices: over more axes, XLA on CPU takes longer.
    x, weight = kept
    inputs, outputs = (math.prod(array.shape[2:]) for array in (x, gradient))
    wide = dequantize(weight, x.dtype).reshape(inputs, outputs)
    a, b = weight.a.reshape(-1, inputs), weight.b.reshape(-1, outputs)
    given, rows = gradient.reshape(-1, outputs), x.reshape(-1, inputs)
    by_low = weight.scale * (given @ b.T)
    low = weight.scale * (rows @ a.T)
    by_weight = replace(
        weight,
        base=None,
        a=(by_low.T @ rows).reshape(weight.a.shape),
        b=(low.T @ given).reshape(weight.b.shape),
    )
    return (given @ wide.T).reshape(x.shape), by_weight


_lora_product.defvjp(_lora_forward, _lora_backward)


def _dense_product(x: Array, weight: LoraWeight | qwix.QArray) -> Array:
    return _product(x, dequantize(weight, x.dtype))


def _product(x: Array, weight: Array) -> Array:
    """Multiplies as a product of two matrices, in the backward pass too.

    As one over two axes, XLA on CPU transposes the weight in memory at every step, and
    sums a weight's gradient over rows and positions at half the speed.
    """
    inputs, outputs = math.prod(x.shape[2:]), weight.shape[x.ndim - 2 :]
    flat = x.reshape(-1, inputs) @ weight.reshape(inputs, -1)
    return flat.reshape(*x.shape[:2], *outputs)


def quantize_weight(
    weight: nnx.Variable, kind: Quantization, *, mesh: Mesh
) -> nnx.Variable:
    """Returns the parameter quantized, on the mesh; an abstract one stays abstract."""
    quantize = partial(_quantize_stack, kind=kind, inputs=input_axes(weight))
    value = weight.get_value()
    shape = weight.replace(jax.eval_shape(quantize, value))
    if not isinstance(value, jax.Array):
        return abstract_on(shape, mesh)
    shardings = model_shardings(shape, mesh).get_value()
    return weight.replace(jax.jit(quantize, out_shardings=shardings)(value))


def _quantize_stack(
    stack: Shaped[Array, "L ..."], *, kind: Quantization, inputs: int
) -> qwix.QArray:
    """Quantizes the weights of all layers, whose first axes are their inputs.

    int8 has a scale for every output, nf4 one for each block of the last input axis;
    both are fp32. Blocks lie along an axis, not across the flat weight, so that the
    scales have the weight's axes too and are split over a mesh like it.
    """

    def one(weight: Array) -> qwix.QArray:
        wide, outputs = weight.astype(jnp.float32), range(inputs, weight.ndim)
        if kind == "int8":
            return qwix.quantize(wide, jnp.int8, channelwise_axes=tuple(outputs))
        last = inputs - 1
        return qwix.quantize(
            wide,
            "nf4",
            channelwise_axes=(*range(last), *outputs),
            tiled_axes={last: math.gcd(weight.shape[last], BLOCK)},
        )

    return jax.lax.map(one, stack)  # one layer in fp32 at a time


def dequantize(weight: LoraWeight | qwix.QArray, dtype: Any) -> Array:
    """Returns a layer's weight as one array, computed in fp32."""
    if isinstance(weight, qwix.QArray):
        return qwix.dequantize(weight).astype(dtype)
    base = weight.base
    if isinstance(base, qwix.QArray):
        base = qwix.dequantize(base)
    # In fp32 first: XLA on CPU has no product of bf16 matrices that yields fp32 here.
    a, b = weight.a.astype(jnp.float32), weight.b.astype(jnp.float32)
    both = jnp.tensordot(a, b, axes=(0, 0))
    return (base.astype(jnp.float32) + weight.scale * both).astype(dtype)


def to_dense(stack: LoraWeight | qwix.QArray, dtype: Any) -> Shaped[Array, "L ..."]:
    """Returns the weights of all layers as one array."""
    return jax.lax.map(partial(dequantize, dtype=dtype), stack)
