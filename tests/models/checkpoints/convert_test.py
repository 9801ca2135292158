"""Every variant goes through every format and comes out to the bit."""

import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
from handoff import restored
from llama_files import gguf_metadata, gguf_tensors, write_gguf, write_llama
from safetensors.numpy import load_file, save_file
from tiny_families import VARIANTS, drawn, tensors_of
from tiny_run import tiny_tokenizer

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.convert import (
    convert_description,
    convert_weights,
    round_to,
)
from isara_jax.models.checkpoints.load import (
    load_model,
    named_tensors,
)
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.checkpoints.save import save_hugging_face
from isara_jax.models.formats.safetensors import write_safetensors
from isara_jax.runtime.checkpoint import save_stream
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.tokenizer import load_tokenizer


def convert(source, folder, *, to, dtype="float32"):
    """Converts weights and config, and counts the tensors."""
    folder.mkdir()
    opened = open_model(source)
    counted = []
    found = convert_weights(
        folder,
        opened,
        to=to,
        dtype=dtype,
        advance=lambda: counted.append(1),
    )
    convert_description(folder, opened, tiny_tokenizer(), dtype=dtype)
    return found, len(counted)


def assert_holds(folder, expected, *, dtype=np.float32):
    """Checks the folder's tensors, as they are read from it, against the expected."""
    weights = open_model(folder).tensors
    assert set(weights.readers) == set(expected)
    for name, value in expected.items():
        read = weights.read(name)
        assert read.dtype == dtype
        assert read.shape == value.shape
        assert read.tobytes() == value.astype(dtype).tobytes(), name


@pytest.fixture(params=VARIANTS)
def variant(request, tmp_path):
    model = drawn(request.param)
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", tensors_of(model)


def test_through_both_formats_and_back(tmp_path, variant):
    source, expected = variant
    last = source
    for number, to in enumerate(("orbax", "hf")):
        folder = tmp_path / f"{number}_{to}"
        found, counted = convert(last, folder, to=to)
        assert (found, counted) == ({"float32"}, len(expected))
        assert_holds(folder, expected)
        assert open_model(folder).config == open_model(source).config
        last = folder
    assert load_file(last / "model.safetensors").keys() == expected.keys()


def test_through_our_model(tmp_path, variant):
    source, expected = variant
    model = load_model(
        open_model(source), dtype="float32", mesh=make_mesh(data=2, model=2)
    )
    save_hugging_face(tmp_path / "ours", model, tiny_tokenizer())
    assert_holds(tmp_path / "ours", expected)
    assert open_model(tmp_path / "ours").config == open_model(source).config


@pytest.mark.parametrize("name", ["LLaMA GQA", "OPT 350m"])
def test_a_process_with_orbax_and_jax_alone_gets_the_same_bytes(tmp_path, name):
    model = drawn(name)
    model.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", to="orbax", dtype="bfloat16")
    expected = {
        name: value.astype(ml_dtypes.bfloat16)
        for name, value in tensors_of(model).items()
    }
    assert restored(tmp_path / "ours") == {
        name: [
            "bfloat16",
            list(value.shape),
            hashlib.sha256(value.tobytes()).hexdigest(),
        ]
        for name, value in expected.items()
    }


@pytest.mark.parametrize(("data", "model_axis"), [(4, 2), (2, 4), (8, 1)])
@pytest.mark.parametrize("name", ["LLaMA GQA", "OPT"])
def test_orbax_loads_onto_any_mesh(tmp_path, name, data, model_axis):
    drawn(name).save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", to="orbax")
    mesh = make_mesh(data=data, model=model_axis)
    spread = load_model(open_model(tmp_path / "ours"), dtype="float32", mesh=mesh)
    assert len(spread.layers.up[...].sharding.device_set) == 8
    assert not spread.layers.up[...].sharding.is_fully_replicated
    alone = load_model(
        open_model(tmp_path / "theirs"),
        dtype="float32",
        mesh=make_mesh(data=1, model=1),
    )
    expected = dict(named_tensors(alone))
    for tensor, value in named_tensors(spread):
        np.testing.assert_array_equal(value, expected[tensor])


@pytest.mark.parametrize("to", ["hf", "orbax"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_is_chosen_on_the_way(tmp_path, to, dtype):
    model = drawn("LLaMA tied")
    model.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", to=to, dtype=dtype)
    assert_holds(tmp_path / "ours", tensors_of(model), dtype=np.dtype(dtype))
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert config["torch_dtype"] == dtype and "dtype" not in config


def test_the_dtypes_that_were_found(tmp_path):
    tensors = tensors_of(drawn("LLaMA GQA"))
    drawn("LLaMA GQA").save_pretrained(tmp_path / "theirs")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float16)
    save_file(tensors, tmp_path / "theirs/model.safetensors")
    found, _ = convert(tmp_path / "theirs", tmp_path / "ours", to="hf")
    assert found == {"float16", "float32"}


@pytest.mark.parametrize("to", ["hf", "orbax"])
def test_a_gguf_file_is_the_folder_s_model(tmp_path, to):
    reference = write_llama(tmp_path / "theirs", rms_norm_eps=1e-5)
    path = write_gguf(
        tmp_path / "m.gguf", gguf_metadata(reference), gguf_tensors(reference)
    )
    convert(path, tmp_path / "ours", to=to)
    assert_holds(tmp_path / "ours", load_file(tmp_path / "theirs/model.safetensors"))
    assert (
        open_model(tmp_path / "ours").config == open_model(tmp_path / "theirs").config
    )
    loaded = load_tokenizer(tmp_path / "ours")
    assert loaded.eos == tiny_tokenizer().eos


def test_what_stands_beside_the_weights_is_copied(tmp_path):
    drawn("LLaMA 14 labels").save_pretrained(tmp_path / "theirs")
    source = tmp_path / "theirs"
    kept = {
        "tokenizer.model": b"\x00sentencepiece",
        "generation_config.json": b'{"eos_token_id": [2, 3], "temperature": 0.6}',
        "chat_template.jinja": b"{{ messages }}",
        "LICENSE.txt": b"Community Licence",
        "USE_POLICY.md": b"Be kind.",
    }
    left = {"README.md": b"# M", "pytorch_model.bin": b"x", "optimizer.pt": b"x"}
    for name, content in (kept | left).items():
        (source / name).write_bytes(content)
    config = json.loads((source / "config.json").read_text())
    config |= {"id2label": {str(n): f"harm {n}" for n in range(14)}, "bos_token_id": 7}
    (source / "config.json").write_text(json.dumps(config))
    convert(source, tmp_path / "ours", to="hf")
    for name, content in kept.items():
        assert (tmp_path / "ours" / name).read_bytes() == content
    assert not any((tmp_path / "ours" / name).exists() for name in left)
    written = json.loads((tmp_path / "ours/config.json").read_text())
    assert written["id2label"]["13"] == "harm 13" and written["bos_token_id"] == 7


def test_safetensors_go_before_orbax(tmp_path):
    drawn("LLaMA GQA").save_pretrained(tmp_path)
    expected = tensors_of(drawn("LLaMA GQA"))
    other = {name: value + 1 for name, value in expected.items()}
    save_stream(tmp_path / "orbax", other.items())
    assert_holds(tmp_path, expected)
    (tmp_path / "model.safetensors").unlink()
    assert_holds(tmp_path, other)


def test_shards_come_in_and_go_out(tmp_path):
    expected = tensors_of(drawn("LLaMA GQA"))
    drawn("LLaMA GQA").save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs/model.safetensors").unlink()
    write_safetensors(tmp_path / "theirs", expected.items(), shard_bytes=9000)
    convert(tmp_path / "theirs", tmp_path / "ours", to="hf")
    assert_holds(tmp_path / "ours", expected)


def test_what_float16_cannot_hold():
    large = np.array([1, 7e4], np.float32)
    with pytest.raises(InputError, match=r"m: a holds numbers beyond float16's"):
        round_to(large, "float16", name="m: a")
    assert round_to(large, "bfloat16", name="a").dtype == ml_dtypes.bfloat16
    stored = np.array([np.inf, np.nan, 6e4], np.float32)
    kept = round_to(stored, "float16", name="a")
    np.testing.assert_array_equal(kept, stored.astype(np.float16))


def test_no_copy_of_what_has_the_dtype():
    value = np.ones(3, np.float32)
    assert round_to(value, "float32", name="a") is value
