"""Models from files: what stood there comes in."""

import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from changes import change_tensors
from llama_files import SHAPES, gguf_metadata, gguf_tensors, write_gguf, write_llama
from safetensors.numpy import load_file

from isara_jax.models.checkpoints.load import abstract_model, load_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh


def load(source, *, dtype="float32", data=1, model=1):
    return load_model(
        open_model(source), dtype=dtype, mesh=make_mesh(data=data, model=model)
    )


def assert_same(tensors, expected):
    tensors = dict(tensors)
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        assert tensors[name].shape == value.shape
        assert tensors[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_goes_in_and_out_to_the_bit(tmp_path, shape):
    write_llama(tmp_path, **SHAPES[shape])
    expected = load_file(tmp_path / "model.safetensors")
    assert_same(named_tensors(load(tmp_path)), expected)


def test_several_files_are_one_model(tmp_path):
    write_llama(tmp_path / "one")
    write_llama(tmp_path / "many", shard_size="20KB")
    files = list((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 2 and (tmp_path / "many/model.safetensors.index.json").exists()
    assert_same(
        named_tensors(load(tmp_path / "many")),
        load_file(tmp_path / "one/model.safetensors"),
    )


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_is_the_folder_s_model(tmp_path, tied):
    reference = write_llama(tmp_path, tie_word_embeddings=tied, rms_norm_eps=1e-5)
    path = write_gguf(
        tmp_path / "m.gguf", gguf_metadata(reference), gguf_tensors(reference)
    )
    assert open_model(path).config == open_model(tmp_path).config
    folder = dict(named_tensors(load(tmp_path)))
    assert_same(named_tensors(load(path)), folder)


def test_bf16_files_are_read(tmp_path):
    write_llama(tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert_same(named_tensors(load(tmp_path, dtype="bfloat16")), stored)
    wide = {name: value.astype(np.float32) for name, value in stored.items()}
    assert_same(named_tensors(load(tmp_path)), wide)


def test_fp32_files_are_rounded_to_bf16(tmp_path):
    write_llama(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    narrow = {name: value.astype(ml_dtypes.bfloat16) for name, value in stored.items()}
    assert_same(named_tensors(load(tmp_path, dtype="bfloat16")), narrow)


def test_a_model_comes_straight_into_its_shardings(tmp_path):
    write_llama(tmp_path)
    spread = load(tmp_path, data=4, model=2)
    assert spread.layers.up[...].addressable_shards[0].data.shape == (3, 8, 24)
    assert_same(named_tensors(spread), dict(named_tensors(load(tmp_path))))


def test_the_host_holds_one_tensor_at_a_time(tmp_path):
    layers, width = 12, 256
    write_llama(tmp_path, num_hidden_layers=layers, hidden_size=width, vocab_size=23)
    largest = width * width * 4
    load(tmp_path, data=2)  # compiles
    tracemalloc.start()
    try:
        model = load(tmp_path, data=2)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model.layers.q[...].nbytes == layers * largest
    assert most < layers / 2 * largest  # a few copies of one layer


def test_an_abstract_model_has_shapes_and_no_arrays(tmp_path):
    write_llama(tmp_path)
    abstract = abstract_model(open_model(tmp_path).config, dtype="bfloat16")
    whole = load(tmp_path)
    assert jax.tree.structure(abstract) == jax.tree.structure(whole)
    for leaf, array in zip(
        jax.tree.leaves(abstract), jax.tree.leaves(whole), strict=True
    ):
        assert leaf.shape == array.shape
        assert isinstance(leaf, jax.ShapeDtypeStruct) and leaf.dtype == jnp.bfloat16


def test_a_tied_head_may_stand_in_the_file_too(tmp_path):
    write_llama(tmp_path, tie_word_embeddings=True)
    expected = load_file(tmp_path / "model.safetensors")
    change_tensors(
        tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]})
    )
    assert_same(named_tensors(load(tmp_path)), expected)
