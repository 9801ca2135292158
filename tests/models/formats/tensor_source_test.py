"""What is no whole weight file is one sentence, at once and whatever was damaged."""

import json
import os
import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
from llama_files import (
    gguf_metadata as metadata_of,
    gguf_tensors,
    write_gguf,
    write_llama,
)
from safetensors.numpy import load_file, save_file
from tiny_llama import TINY

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.formats.tensor_source import open_safetensors
from isara_jax.models.llama.gguf import open_gguf_tensors
from isara_jax.runtime.gguf_file import read_gguf


def open_gguf(path):
    return open_gguf_tensors(read_gguf(path), TINY)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def whole_gguf(tmp_path, model):
    return write_gguf(tmp_path / "m.gguf", metadata_of(model), gguf_tensors(model))


def write_index(folder, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "model.safetensors.index.json").write_text(text)


def write_two(folder):
    """Writes two files that no index names."""
    save_file({"a": np.ones(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.ones(3, np.float32)}, folder / "two.safetensors")


# Safetensors


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
def test_floats_are_read_to_the_bit(tmp_path, dtype):
    written = np.random.default_rng(0).standard_normal((3, 5)).astype(dtype)
    save_file({"a": written}, tmp_path / "model.safetensors")
    read = open_safetensors(tmp_path).read("a")
    assert read.dtype == written.dtype
    assert read.tobytes() == written.tobytes()


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", ml_dtypes.float8_e4m3fn])
def test_no_plain_floats(tmp_path, dtype):
    save_file({"a": np.ones(2).astype(dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"the tensor 'a' (holds|does not load)"):
        open_safetensors(tmp_path).read("a")


def test_files_of_an_index_are_one(tmp_path):
    write_two(tmp_path)
    save_file({"old": np.ones(1)}, tmp_path / "three.safetensors")
    write_index(
        tmp_path, {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    )
    weights = open_safetensors(tmp_path)
    assert set(weights.readers) == {"a", "b"}
    assert weights.read("b").shape == (3,)


def test_one_whole_file_goes_before_an_index_as_in_transformers(tmp_path):
    write_two(tmp_path)
    save_file({"new": np.ones(1)}, tmp_path / "model.safetensors")
    write_index(tmp_path, {"weight_map": {"a": "one.safetensors"}})
    assert set(open_safetensors(tmp_path).readers) == {"new"}


def test_files_without_an_index_are_one(tmp_path):
    write_two(tmp_path)
    assert set(open_safetensors(tmp_path).readers) == {"a", "b"}


def test_two_files_hold_one_tensor(tmp_path):
    write_two(tmp_path)
    save_file({"a": np.ones(2)}, tmp_path / "three.safetensors")
    with pytest.raises(InputError, match=r"three\.safetensors: another file holds 'a'"):
        open_safetensors(tmp_path)


@pytest.mark.parametrize(
    "derived",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "normalizer.mean",
        "normalizer.var",
        "normalizer.count",
    ],
)
def test_derived_tensors_are_left_out(tmp_path, derived):
    save_file({derived: np.ones(2), "a": np.ones(1)}, tmp_path / "model.safetensors")
    assert set(open_safetensors(tmp_path).readers) == {"a"}


@pytest.mark.parametrize("names", [[], ["pytorch_model.bin"]])
def test_no_safetensors(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"no \.safetensors file in the folder"):
        open_safetensors(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "gone.safetensors"}}, "names 'gone.safetensors', which"),
        ({"weight_map": {"a": "../one.safetensors"}}, "names '../one.safetensors'"),
        ({"weight_map": {"a": "/etc/hostname"}}, "names '/etc/hostname', which is no"),
        ({"weight_map": {"a": ".."}}, "names '..', which is no"),
        (
            {"weight_map": {"a": ["one.safetensors"]}},
            "names .'one.safetensors'., which",
        ),
        ({"weight_map": {"a": 3}}, "names 3, which is no"),
        ({"weight_map": ["one.safetensors"]}, "expected a JSON object with a weight"),
        ({"weight_map": {}}, "expected a JSON object with a weight_map"),
        ({}, "expected a JSON object with a weight_map"),
        ([], "expected a JSON object with a weight_map"),
        ("{", "damaged, not JSON"),
    ],
)
def test_index_refused(tmp_path, index, message):
    folder = tmp_path / "model"
    folder.mkdir()
    write_two(folder)
    save_file({"a": np.ones(1)}, tmp_path / "one.safetensors")
    write_index(folder, index)
    with pytest.raises(InputError, match=rf"index\.json: {message}"):
        open_safetensors(folder)


DAMAGE = {
    "empty": lambda raw: b"",
    "no header": lambda raw: raw[:5],
    "half a header": lambda raw: raw[:30],
    "cut by a byte": lambda raw: raw[:-1],
    "a header longer than the file": lambda raw: struct.pack("<Q", 10**6) + raw[8:],
    "a header of 2^63 bytes": lambda raw: struct.pack("<Q", 2**63) + raw[8:],
    "a header that ends early": lambda raw: struct.pack("<Q", 10) + raw[8:],
    "no JSON": lambda raw: raw[:8] + b"#" * (len(raw) - 8),
    "another size than the header's": lambda raw: raw.replace(b"[2]", b"[9]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_safetensors(tmp_path, damage):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(2)}, path)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(
        InputError, match=r"model\.safetensors: not a whole safetensors"
    ):
        open_safetensors(tmp_path)


# GGUF


def test_gguf_tensors_are_hugging_face_s(model, whole_gguf):
    weights = open_model(whole_gguf).tensors
    expected = model.state_dict()
    assert set(weights.readers) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(weights.read(name), value.numpy())


def test_quantized_tensors_are_dequantized(tmp_path):
    written = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(
        "blk.0.ffn_up.weight", gguf.quants.quantize(written, kind), raw_dtype=kind
    )
    for step in ("write_header", "write_kv_data", "write_tensors"):
        getattr(writer, f"{step}_to_file")()
    writer.close()
    weights = open_gguf(tmp_path / "m.gguf")
    read = weights.read("model.layers.0.mlp.up_proj.weight")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, written, atol=0.02)


@pytest.mark.parametrize(
    "name", ["blk.0.ffn_gate_exps.weight", "blk.0.attn_q.scale", "v.blk.0.x", "blk.x.y"]
)
def test_gguf_tensor_of_another_architecture(tmp_path, model, name):
    tensors = gguf_tensors(model) | {name: np.ones(2, np.float32)}
    path = write_gguf(tmp_path / "m.gguf", metadata_of(model), tensors)
    with pytest.raises(InputError, match=rf"m\.gguf: the tensor '{name}' is none of a"):
        open_gguf(path)


def test_frequency_factors_are_no_weight(tmp_path, model):
    factors = np.array([1, 1, 1, 8], np.float32)
    tensors = gguf_tensors(model) | {"rope_freqs.weight": factors}
    path = write_gguf(tmp_path / "m.gguf", metadata_of(model), tensors)
    weights = open_gguf(path)
    assert set(weights.readers) == set(model.state_dict())


def test_gguf_tensor_of_whole_numbers(tmp_path, model):
    tensors = gguf_tensors(model) | {"output_norm.weight": np.ones(32, np.int32)}
    path = write_gguf(tmp_path / "m.gguf", metadata_of(model), tensors)
    with pytest.raises(InputError, match=r"'model\.norm\.weight' does not load"):
        open_gguf(path).read("model.norm.weight")


def test_no_gguf(tmp_path):
    with pytest.raises(InputError, match=r"m\.gguf: no such file"):
        read_gguf(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").mkdir()
    with pytest.raises(InputError, match=r"m\.gguf: not a whole GGUF file"):
        read_gguf(tmp_path / "m.gguf")


def header(tensors, pairs):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs)


def pair(kind, value):
    return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value


ARRAY, U8 = 9, 0
LIES = {
    "no byte": b"",
    "another magic": b"GGML" + bytes(40),
    "noise": os.urandom(64),
    "version 99": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
    "2^62 pairs": header(0, 2**62),
    "2^62 tensors": header(2**62, 0),
    "a key of 2^63 bytes": header(0, 1) + struct.pack("<Q", 2**63) + bytes(64),
    "an array of 2^62": header(0, 1)
    + pair(ARRAY, struct.pack("<IQ", U8, 2**62) + bytes(8)),
    "arrays in arrays": header(0, 1)
    + pair(ARRAY, struct.pack("<IQ", ARRAY, 1) * 5000 + bytes(8)),
    "an unknown kind": header(0, 1) + pair(77, bytes(8)),
    "a key twice": header(0, 2) + pair(U8, b"1") * 2,
    "a tensor of 2^40 axes": header(1, 0)
    + struct.pack("<Q", 1)
    + b"t"
    + struct.pack("<I", 2**31)
    + bytes(64),
    "a tensor of 2^62": header(1, 0)
    + struct.pack("<Q", 1)
    + b"t"
    + struct.pack("<IQIQ", 1, 2**62, 0, 0)
    + bytes(64),
    "sizes whose product is 0 in 64 bits": header(1, 0)
    + struct.pack("<Q", 1)
    + b"t"
    + struct.pack("<IQQIQ", 2, 2**32, 2**32, 0, 0)
    + bytes(64),
}


@pytest.mark.parametrize("lie", LIES)
def test_damaged_gguf(tmp_path, lie):
    path = tmp_path / "m.gguf"
    path.write_bytes(LIES[lie])
    with pytest.raises(InputError, match=r"m\.gguf: not a whole GGUF file"):
        read_gguf(path)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_gguf(whole_gguf, share):
    raw = whole_gguf.read_bytes()
    whole_gguf.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(InputError, match="not a whole GGUF file"):
        read_gguf(whole_gguf)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_byte_is_read_or_refused(whole_gguf, seed):
    raw = bytearray(whole_gguf.read_bytes())
    random = np.random.default_rng(seed)
    raw[random.integers(2500)] = random.integers(256)
    whole_gguf.write_bytes(raw)
    try:
        weights = open_gguf(whole_gguf)
        outcome = [weights.read(name) for name in weights.readers]
    except InputError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert "m.gguf: " in outcome
    else:
        assert all(isinstance(array, np.ndarray) for array in outcome)


def test_the_folder_of_a_model_is_opened(tmp_path, model):
    model.save_pretrained(tmp_path)
    expected = load_file(tmp_path / "model.safetensors")
    weights = open_model(tmp_path).tensors
    assert set(weights.readers) == set(expected)
