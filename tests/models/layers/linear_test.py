"""Projections by dense, quantized and LoRA weights, and what quantizing costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from isara_jax.models.layers.linear import (
    LoraWeight,
    dequantize,
    linear,
    quantize_weight,
    to_dense,
)
from isara_jax.runtime.mesh import make_mesh

# Dettmers et al. 2023, Appendix E.
LEVELS = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
    *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
]
AXES = {
    "q": ("layers", "embed", "heads", "head_dim"),
    "o": ("layers", "heads", "head_dim", "embed"),
}
INPUTS = {"q": 1, "o": 2}


def drawn(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def weight(name, *, layers=2):
    """Returns 96 inputs and 64 outputs a layer, or 64 and 96."""
    shape = {"q": (96, 2, 32), "o": (2, 32, 96)}[name]
    return nnx.Param(drawn(layers, *shape), axes=AXES[name], inputs=INPUTS[name])


def quantize(name, kind, **layers):
    mesh = make_mesh(data=1, model=1)
    return quantize_weight(weight(name, **layers), kind, mesh=mesh)


def of_layer(variable, number=0):
    value = jax.tree.map(lambda array: array[number], variable.get_value())
    return variable.replace(value)


def inputs_of(name):
    return drawn(3, 5, *((96,) if name == "q" else (2, 32)), seed=1)


PRODUCTS = {"q": "bti,inh->btnh", "o": "btnh,nhi->bti"}


@pytest.mark.parametrize("name", AXES)
def test_a_projection_sums_over_its_inputs(name):
    x, own = inputs_of(name), of_layer(weight(name))
    wanted = np.einsum(PRODUCTS[name], x, own.get_value())
    np.testing.assert_allclose(linear(x, own), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [None, "int8", "nf4"])
@pytest.mark.parametrize("name", AXES)
def test_an_adapted_projection_is_that_of_the_merged_weight(name, kind):
    stack = quantize(name, kind) if kind else weight(name)
    shape = stack.get_value().shape
    split = 1 + INPUTS[name]
    both = LoraWeight(
        base=stack.get_value(),
        a=drawn(2, 3, *shape[1:split], seed=2),
        b=drawn(2, 3, *shape[split:], seed=3),
        scale=0.5,
    )
    whole, x = to_dense(both, jnp.dtype("float32")), inputs_of(name)
    for number in range(2):
        ours = linear(x, of_layer(stack.replace(both), number))
        wanted = linear(x, nnx.Param(whole[number]))
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [None, "nf4"])
@pytest.mark.parametrize("name", AXES)
def test_gradients_are_those_of_the_kernel_that_is_written_out(name, kind):
    stack = of_layer(quantize(name, kind) if kind else weight(name))
    base, split = stack.get_value(), INPUTS[name]
    a = drawn(3, *base.shape[:split], seed=2)
    b, x = drawn(3, *base.shape[split:], seed=3), inputs_of(name)
    wide = dequantize(base, jnp.float32) if kind else base

    def ours(x, a, b):
        both = LoraWeight(base=base, a=a, b=b, scale=0.5)
        return jnp.sin(linear(x, stack.replace(both))).sum()

    def theirs(x, a, b):
        return jnp.sin(linear(x, nnx.Param(wide + 0.5 * jnp.tensordot(a, b, (0, 0)))))

    found = jax.grad(ours, (0, 1, 2))(x, a, b)
    wanted = jax.grad(lambda *given: theirs(*given).sum(), (0, 1, 2))(x, a, b)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [None, "nf4"])
def test_bf16_is_summed_in_fp32_and_keeps_its_dtype(kind):
    stack = of_layer(quantize("q", kind) if kind else weight("q"))
    base, x = stack.get_value(), inputs_of("q").astype(jnp.bfloat16)
    a, b = (drawn(3, *shape).astype(jnp.bfloat16) for shape in ((96,), (2, 32)))

    def out(x, a, b):
        both = LoraWeight(base=base, a=a, b=b, scale=0.5)
        return linear(x, stack.replace(both))

    found, pullback = jax.jit(lambda *given: jax.vjp(out, *given))(x, a, b)
    wide = dequantize(base, jnp.float32) if kind else base
    whole = wide + 0.5 * jnp.tensordot(*map(jnp.float32, (a, b)), (0, 0))
    wanted = linear(x, nnx.Param(whole.astype(jnp.bfloat16)))
    np.testing.assert_array_equal(found, wanted)
    assert {one.dtype for one in (found, *pullback(found))} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("name", AXES)
def test_int8_is_within_half_a_step_of_each_output(name):
    weights, stack = weight(name).get_value(), quantize(name, "int8")
    found = to_dense(stack.get_value(), jnp.dtype("float32"))
    over = tuple(range(1, 1 + INPUTS[name]))
    step = np.abs(weights).max(axis=over, keepdims=True) / 127.5
    assert np.all(np.abs(found - weights) <= 0.5001 * step)
    assert np.abs(found - weights).max() > 0.4 * step.min()
    assert stack.get_value().qvalue.dtype == jnp.int8


@pytest.mark.parametrize("name", AXES)
def test_nf4_is_the_nearest_of_the_paper_s_levels_in_each_block(name):
    weights, stack = weight(name).get_value(), quantize(name, "nf4")
    found = to_dense(stack.get_value(), jnp.dtype("float32"))
    last = INPUTS[name]
    block = {"q": 32, "o": 32}[name]  # 96 and 32 have no block of 64

    def blocks(array):
        array = np.moveaxis(np.asarray(array), last, -1)
        return array.reshape(*array.shape[:-1], -1, block)

    largest = np.abs(blocks(weights)).max(axis=-1, keepdims=True)
    shares = (blocks(weights) / largest)[..., None]
    nearest = np.array(LEVELS)[np.argmin(np.abs(shares - np.array(LEVELS)), axis=-1)]
    np.testing.assert_allclose(blocks(found), nearest * largest, rtol=1e-5, atol=1e-6)


def test_nf4_takes_half_a_byte_and_a_sixteenth():
    wide = nnx.Param(drawn(2, 128, 4, 64), axes=AXES["q"], inputs=1)
    mesh = make_mesh(data=1, model=1)

    def small(array):
        return quantize_weight(wide.replace(array), "nf4", mesh=mesh).get_value()

    compiled = jax.jit(small).lower(wide.get_value()).compile()
    taken = compiled.memory_analysis().output_size_in_bytes
    assert taken / wide.get_value().size == pytest.approx(0.5 + 4 / 64, rel=0.01)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_scales_and_codes_are_split_like_the_weight(kind):
    wide = nnx.Param(drawn(2, 128, 4, 64), axes=AXES["q"], inputs=1)
    mesh = make_mesh(data=2, model=4)
    found = quantize_weight(wide, kind, mesh=mesh).get_value()
    codes, scales = found.qvalue, found.scale
    assert codes.addressable_shards[0].data.shape == (2, 64, 1, 64)
    blocks = {"int8": 1, "nf4": 1}[kind]  # one for all inputs, or one of two
    assert scales.addressable_shards[0].data.shape == (2, blocks, 1, 64)
    alone = quantize_weight(wide, kind, mesh=make_mesh(data=1, model=1))
    for one, two in zip(
        jax.tree.leaves(found), jax.tree.leaves(alone.get_value()), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


def test_a_weight_of_zeros_stays_one():
    nothing = nnx.Param(jnp.zeros((1, 64, 2, 8)), axes=AXES["q"], inputs=1)
    for kind in ("int8", "nf4"):
        found = quantize_weight(nothing, kind, mesh=make_mesh(data=1, model=1))
        assert not np.any(dequantize(of_layer(found).get_value(), jnp.float32))


@pytest.mark.parametrize("adapted", [False, True])
def test_the_backward_pass_does_not_keep_a_dense_weight(adapted):
    stack, x = quantize("q", "nf4", layers=8).get_value(), drawn(1, 2, 96)
    if adapted:
        a, b = drawn(8, 1, 96), drawn(8, 1, 2, 32)
        stack = LoraWeight(base=stack, a=a, b=b, scale=1.0)

    def loss(x, stack):
        def layer(x, one):
            out = linear(x, nnx.Param(one))
            return jnp.tanh(
                jnp.concatenate([out.reshape(1, 2, 64), x[..., 64:]], -1)
            ), 0

        return jax.lax.scan(layer, x, stack)[0].sum()

    program = jax.jit(jax.grad(loss)).lower(x, stack).compile()
    # One layer's widened kernel is 96 * 64 * 4 bytes.
    assert program.memory_analysis().temp_size_in_bytes < 5 * 96 * 64 * 4
