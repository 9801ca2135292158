"""LLaMA against transformers' on torch, and against itself on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from llama_files import SHAPES, reference_logits, write_llama
from whole_rows import jitted_logits, logits_of

from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh, shard_batch

ONE = {"data": 1, "model": 1}


def load(folder, *, dtype="float32", **mesh):
    return load_model(open_model(folder), dtype=dtype, mesh=make_mesh(**(mesh or ONE)))


def drawn_tokens(model, *, rows=4, length=11):
    vocabulary = model.config.vocab_size
    return np.random.default_rng(0).integers(0, vocabulary, (rows, length))


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_the_reference_s(tmp_path, shape):
    reference = write_llama(tmp_path, **SHAPES[shape])
    model = load(tmp_path)
    tokens = drawn_tokens(model)
    expected = reference_logits(reference, tokens)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits_of(model, tokens), expected, atol=1e-4)


def test_long_rows_are_the_reference_s(tmp_path):
    reference = write_llama(tmp_path)
    model = load(tmp_path)
    tokens = drawn_tokens(model, rows=1, length=300)
    np.testing.assert_allclose(
        logits_of(model, tokens), reference_logits(reference, tokens), atol=1e-4
    )


def test_jit_changes_nothing(tmp_path):
    write_llama(tmp_path, num_hidden_layers=1)
    model = load(tmp_path)
    tokens = jnp.asarray(drawn_tokens(model))
    np.testing.assert_allclose(
        jitted_logits.__wrapped__(model, tokens, jnp.ones_like(tokens)),
        logits_of(model, tokens),
        atol=1e-4,
    )


def test_bf16_runs_and_stays_near(tmp_path):
    reference = write_llama(tmp_path)
    model = load(tmp_path, dtype="bfloat16")
    tokens = drawn_tokens(model)
    got, expected = logits_of(model, tokens), reference_logits(reference, tokens)
    assert got.dtype == jnp.float32, "the head gives fp32 whatever the model is"
    assert 1e-4 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.05


@pytest.mark.parametrize(("data", "model_axis"), [(4, 2), (2, 4)])
def test_eight_devices_give_what_one_gives(tmp_path, data, model_axis):
    write_llama(tmp_path, num_key_value_heads=4, vocab_size=24)
    alone, spread = load(tmp_path), load(tmp_path, data=data, model=model_axis)
    tokens = drawn_tokens(alone, rows=8)
    batch = shard_batch(tokens, make_mesh(data=data, model=model_axis))
    assert len(batch.sharding.device_set) == 8
    np.testing.assert_allclose(
        logits_of(spread, batch), logits_of(alone, tokens), atol=5e-5
    )


EVEN = {
    "embedding": ("model", "data"),
    "head": ("model", "data"),
    "norm": (None,),
    "layers.attention_norm": (None, None),
    "layers.mlp_norm": (None, None),
    "layers.q": (None, "data", "model", None),
    "layers.k": (None, "data", "model", None),
    "layers.v": (None, "data", "model", None),
    "layers.o": (None, "model", None, "data"),
    "layers.gate": (None, "data", "model"),
    "layers.up": (None, "data", "model"),
    "layers.down": (None, "model", "data"),
}
# 2 KV heads over 4 devices, 23 tokens over 4: these axes stay whole.
UNEVEN = EVEN | {
    "embedding": (None, "data"),
    "head": (None, "data"),
    "layers.k": (None, "data", None, None),
    "layers.v": (None, "data", None, None),
}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"num_key_value_heads": 4, "vocab_size": 24}, EVEN),
        ({"num_key_value_heads": 2, "vocab_size": 23}, UNEVEN),
    ],
)
def test_parameters_are_split_by_their_axis_words(tmp_path, sizes, expected):
    write_llama(tmp_path, **sizes)
    model = load(tmp_path, data=2, model=4)
    assert placements(model) == expected
    shard = model.layers.gate[...].addressable_shards[0].data
    assert shard.shape == (3, 16, 12)


def placements(model):
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
    )
    found = {}
    for path, variable in leaves:
        value = variable.get_value()
        spec = PartitionSpec(*value.sharding.spec)
        name = ".".join(str(key.name) for key in path)
        found[name] = tuple(spec) + (None,) * (value.ndim - len(spec))
    return found
