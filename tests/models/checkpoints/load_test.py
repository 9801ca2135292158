"""Models from files: what stood there comes in, or one sentence says why not."""

import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from changes import change_json, change_tensors
from llama_files import (
    SHAPES,
    gguf_metadata,
    gguf_tensors,
    write_gguf,
    write_llama,
)
from safetensors.numpy import load_file

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.card import licence_of_card
from isara_jax.models.checkpoints.load import (
    abstract_model,
    load_model,
    named_tensors,
)
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


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(Q), f"the tensor '{Q}' is missing"),
        (lambda t: t.pop("lm_head.weight"), "the tensor 'lm_head.weight' is missing"),
        (
            lambda t: t.update({Q: np.ones((32, 31), np.float32)}),
            rf"'{Q}' has the shape \[32, 31\], expected \[32, 32\]",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(31, np.float32)}),
            r"'model\.norm\.weight' has the shape \[31\], expected \[32\]",
        ),
        (
            lambda t: t.update({Q: t[Q].reshape(-1)}),
            r"has the shape \[1024\], expected \[32, 32\]",
        ),
        (
            lambda t: t.update({"model.layers.1.self_attn.q_proj.bias": np.ones(32)}),
            r"'model\.layers\.1\.self_attn\.q_proj\.bias' is unknown to a LLaMA of 3",
        ),
        (
            lambda t: t.update({Q.replace("1", "3"): t[Q]}),
            r"'model\.layers\.3\.self_attn\.q_proj\.weight' is unknown to a LLaMA of 3",
        ),
        (lambda t: t.update({Q: t[Q].astype(np.int64)}), f"'{Q}' holds int64"),
        (lambda t: t.update({Q: t[Q].astype(bool)}), f"'{Q}' holds bool"),
    ],
)
def test_tensors_refused(tmp_path, change, message):
    write_llama(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2', expected one of llama, mistral"),
        ({"model_type": ...}, "model_type=None, expected one of llama, mistral"),
        ({"attention_multiplier": 0.5}, "attention_multiplier=0.5, an attribute that"),
        ({"num_attention_heads": "x"}, "num_attention_heads='x', expected a whole"),
        ({"num_hidden_layers": -1}, "num_hidden_layers=-1, expected a whole"),
        ({"hidden_size": ...}, "hidden_size=None, expected a whole"),
        # Absurd, but well formed: refused by the tensors, without an allocation.
        ({"num_hidden_layers": 2**31 - 1}, r"model\.layers\.3\..* is missing"),
        ({"vocab_size": 2**31 - 1}, "has the shape"),
        ({"hidden_size": 2**31 - 1}, "has the shape"),
        ({"intermediate_size": 2**31 - 1}, "has the shape"),
        (
            {"num_attention_heads": 2**31 - 2, "head_dim": 2**31 - 2},
            "has the shape",
        ),
    ],
)
def test_config_refused(tmp_path, changes, message):
    write_llama(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json: damaged, not JSON"),
        ("", r"config\.json: damaged, not JSON"),
        ("\xff", r"config\.json: damaged, not JSON"),
        ("[1]", r"config\.json: expected a JSON object"),
        ("null", r"config\.json: expected a JSON object"),
        (None, r"no config\.json in the folder"),
    ],
)
def test_config_damaged_or_missing(tmp_path, text, message):
    write_llama(tmp_path)
    (tmp_path / "config.json").unlink()
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"gone: no config\.json in the folder"):
        load(tmp_path / "gone")


def test_a_folder_of_pickles(tmp_path):
    write_llama(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"not to be opened")
    with pytest.raises(InputError, match=r"no \.safetensors file in the folder"):
        load(tmp_path)


def test_truncated_safetensors(tmp_path):
    write_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: not a whole"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "architecture", "message"),
    [
        ({}, "qwen2", "general.architecture='qwen2', expected 'llama'"),
        ({"llama.rope.scaling.type": "yarn"}, "llama", "llama.rope.scaling.type="),
        ({"llama.embedding_length": None}, "llama", "llama.embedding_length=None"),
        ({"llama.block_count": 4}, "llama", r"model\.layers\.3\..* is missing"),
        ({"llama.block_count": 2}, "llama", r"model\.layers\.2\..* is unknown"),
        ({"llama.attention.head_count": 8}, "llama", r"expected \[64, 32\]"),
        ({"llama.attention.head_count": 42}, "llama", r"expected \[336, 32\]"),
        ({"tokenizer.ggml.tokens": ["a"]}, "llama", r"expected \[1, 32\]"),
    ],
)
def test_gguf_refused(tmp_path, changes, architecture, message):
    reference = write_llama(tmp_path)
    path = write_gguf(
        tmp_path / "m.gguf",
        gguf_metadata(reference) | changes,
        gguf_tensors(reference),
        architecture=architecture,
    )
    with pytest.raises(InputError, match=rf"m\.gguf: .*{message}"):
        load(path)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# M", "apache-2.0"),
        ("---\ntags:\n- a\nlicense: 'mit'\n---\n", "mit"),
        ('---\nlicense:   "llama3.2"\n---\n', "llama3.2"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense:\n- mit\n- gpl\n---\n", "mit"),
        ("---\nlicense: [mit, gpl]\n---\n", "mit"),
        ("---\ntags: x\n---\nlicense: mit\n", ""),
        ("---\nlicense_name: own\n---\n", ""),
        ("---\nlicense:\n---\n", ""),
        ("# M\nlicense: mit\n", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_licence_of_a_model_card(tmp_path, card, licence):
    if card is not None:
        (tmp_path / "README.md").write_bytes(card.encode())
    assert licence_of_card(tmp_path / "README.md") == licence


@pytest.mark.parametrize("licence", ["apache-2.0", None])
def test_licence_of_a_gguf_file(tmp_path, licence):
    reference = write_llama(tmp_path)
    metadata = gguf_metadata(reference) | {"general.license": licence}
    path = write_gguf(tmp_path / "m.gguf", metadata, gguf_tensors(reference))
    assert open_model(path).licence == (licence or "")
