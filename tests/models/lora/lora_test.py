"""Adapters as a value: how they begin, which weights have them, what merging does."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peft_twin import drawn_adapters, our_logits
from tiny_families import drawn
from tiny_llama import TINY, tiny_llama

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.load import abstract_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.families import family_of
from isara_jax.models.layers.linear import input_axes
from isara_jax.models.lora.lora import (
    abstract_adapters,
    fresh_adapters,
    linear_weights,
    merge,
    quantize_model,
    target_weights,
    with_lora,
)
from isara_jax.models.opt.model import Opt, OptConfig
from isara_jax.runtime.mesh import make_mesh

TOKENS = jnp.arange(3, 15)
ALL = ("heads", "kv_heads", "mlp")


def one_device():
    return make_mesh(data=1, model=1)


def fresh(model, *targets, mesh=None, rank=4):
    return fresh_adapters(
        model,
        target_weights(model, targets or ALL),
        rank=rank,
        alpha=8,
        key=jax.random.key(0),
        mesh=mesh or one_device(),
    )


@pytest.mark.parametrize(
    ("targets", "kernels"),
    [
        (("heads",), {"q", "o"}),
        (("kv_heads",), {"k", "v"}),
        (("mlp",), {"gate", "up", "down"}),
        (("q", "v"), {"q", "v"}),
        (("embed",), {"q", "k", "v", "o", "gate", "up", "down"}),
    ],
)
def test_targets_are_axes_or_names(targets, kernels):
    assert (
        set(target_weights(abstract_model(TINY, dtype="float32"), targets)) == kernels
    )


def test_an_opt_has_other_kernels():
    config = OptConfig(
        vocab_size=9,
        width=8,
        embedding_width=8,
        layers=1,
        heads=2,
        feed_forward=16,
        context=8,
        activation="relu",
        pre_norm=True,
        final_norm=True,
        biases=True,
        tied_head=True,
    )
    model = jax.eval_shape(lambda: Opt(config, key=jax.random.key(0)))
    assert set(target_weights(model, ALL)) == {"q", "k", "v", "o", "up", "down"}
    with pytest.raises(InputError, match="no linear weight has an axis kv_heads"):
        target_weights(model, ("kv_heads",))


@pytest.mark.parametrize("name", ["LLaMA GQA", "OPT 350m"])
def test_a_linear_weight_has_the_inputs_that_its_file_has(tmp_path, name):
    drawn(name).save_pretrained(tmp_path)
    config = open_model(tmp_path).config
    found = linear_weights(abstract_model(config, dtype="float32"))
    maps = {
        tensor.path[-1]: tensor
        for tensor in family_of(config).tensor_maps(config)
        if tensor.is_linear
    }
    assert list(found) == list(maps)
    for own, weight in found.items():
        shape = weight.get_value().shape[1:]
        _, inputs = maps[own].hf_shape(shape)
        assert math.prod(shape[: input_axes(weight)]) == inputs


@pytest.mark.parametrize("target", ["gates", "norm", "attention_norm", "layers"])
def test_a_target_of_no_kernel_is_refused(target):
    model = abstract_model(TINY, dtype="float32")
    with pytest.raises(
        InputError, match=f"'{target}' is no linear weight .* q, up, v$"
    ):
        target_weights(model, ("q", target))


def test_fresh_ones_add_nothing_and_are_drawn_as_peft_draws_them():
    model = tiny_llama()
    adapters = fresh(model, rank=64)
    np.testing.assert_array_equal(
        our_logits(with_lora(model, adapters), TOKENS), our_logits(model, TOKENS)
    )
    assert (adapters.rank, adapters.alpha) == (64, 8)
    for name, inputs in (("q", 32), ("o", 32), ("down", 64)):
        a = np.asarray(adapters.weights[name].a.get_value())
        assert inputs**-0.5 * 0.99 < np.abs(a).max() <= inputs**-0.5
        assert np.std(a) == pytest.approx((inputs * 3) ** -0.5, rel=0.05)


def test_fresh_ones_are_the_same_on_any_mesh_and_beside_any_others():
    alone = fresh(tiny_llama(), "q")
    split = fresh(tiny_llama(), mesh=make_mesh(data=4, model=2))
    a = split.weights["q"].a.get_value()
    assert a.addressable_shards[0].data.shape == (2, 4, 32 // 4)
    np.testing.assert_array_equal(alone.weights["q"].a.get_value(), a)


def test_the_abstract_ones_have_the_shapes_of_those_that_are_made():
    model, sizes = tiny_llama(dtype=jnp.bfloat16), {"rank": 4, "alpha": 8}
    shapes = abstract_adapters(model, target_weights(model, ALL), **sizes)
    made = fresh(model)
    assert jax.tree.structure(shapes) == jax.tree.structure(made)
    for want, have in zip(jax.tree.leaves(shapes), jax.tree.leaves(made), strict=True):
        assert (want.shape, want.dtype) == (have.shape, have.dtype)


@pytest.mark.parametrize("kind", [None, "int8", "nf4"])
def test_the_merged_model_says_what_the_adapted_one_does(kind):
    mesh, model = one_device(), tiny_llama()
    base = quantize_model(model, kind, mesh=mesh) if kind else model
    adapters = drawn_adapters(model, "kv_heads", "down")
    whole = merge(base, adapters, mesh=mesh)
    wanted = our_logits(with_lora(base, adapters), TOKENS)
    np.testing.assert_allclose(our_logits(whole, TOKENS), wanted, atol=1e-4)
    assert np.abs(wanted - our_logits(model, TOKENS)).max() > 0.1
    assert jax.tree.structure(whole) == jax.tree.structure(model)
    assert whole.embedding.get_value() is not None
    tensors = dict(named_tensors(model))
    for name, value in named_tensors(whole):
        same = np.array_equal(value, tensors[name])
        is_other = any(word in name for word in ("k_proj", "v_proj", "down_proj"))
        assert same != (is_other or (kind is not None and "proj" in name)), name


def test_what_has_no_adapter_is_shared_with_the_base():
    model = tiny_llama()
    whole = merge(model, drawn_adapters(model, "q"), mesh=one_device())

    def place(array):
        return array.addressable_shards[0].data.unsafe_buffer_pointer()

    for name in ("k", "gate", "attention_norm"):
        one, two = getattr(whole.layers, name), getattr(model.layers, name)
        assert place(one.get_value()) == place(two.get_value())


def test_an_abstract_model_is_quantised_to_the_shapes_of_a_real_one():
    mesh = make_mesh(data=4, model=2)
    shapes = quantize_model(abstract_model(TINY, dtype="float32"), "nf4", mesh=mesh)
    real = quantize_model(tiny_llama(), "nf4", mesh=mesh)
    for want, have in zip(jax.tree.leaves(shapes), jax.tree.leaves(real), strict=True):
        assert (want.shape, want.dtype) == (have.shape, have.dtype)
    want, have = shapes.layers.q.get_value(), real.layers.q.get_value()
    assert want.qvalue.sharding.is_equivalent_to(have.qvalue.sharding, 4)
