"""Shards and their index are what transformers reads and we read back, to the bit."""

import json
import resource
import stat
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from llama_files import write_llama
from safetensors.numpy import load_file

from isara_jax.errors import EnvironmentFailure
from isara_jax.models.formats import safetensors as module
from isara_jax.models.formats.safetensors import tensor_readers, write_safetensors

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.ones((5,), ml_dtypes.bfloat16) / 3,
    "c.weight": np.full((2, 2), np.pi, np.float16),
}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_read_back(folder):
    readers = tensor_readers(folder)
    assert list(readers) == list(TENSORS)
    for name, value in TENSORS.items():
        read = readers[name]()
        assert (read.dtype, read.shape) == (value.dtype, value.shape)
        assert read.tobytes() == value.tobytes()


def test_what_fits_is_one_file_without_an_index(tmp_path):
    write_safetensors(tmp_path, TENSORS.items())
    assert names(tmp_path) == ["model.safetensors"]
    assert_read_back(tmp_path)


def test_more_is_shards_with_an_index(tmp_path):
    write_safetensors(tmp_path, TENSORS.items(), shard_bytes=34)
    assert names(tmp_path) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    first, second, _ = names(tmp_path)
    assert index == {
        "metadata": {"total_size": 24 + 10 + 8},
        "weight_map": {"a.weight": first, "b.weight": first, "c.weight": second},
    }
    assert set(load_file(tmp_path / second)) == {"c.weight"}
    assert_read_back(tmp_path)


def test_transformers_reads_shards(tmp_path):
    reference = write_llama(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    write_safetensors(tmp_path, stored.items(), shard_bytes=20_000)
    assert len(names(tmp_path)) > 4
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, value in reference.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_everybody_who_may_read_the_folder_may_read_the_file(tmp_path):
    tmp_path.chmod(0o755)
    write_safetensors(tmp_path, TENSORS.items())
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"c.weight": None}, "'c.weight' is in no entry of it"),
        ({"d.weight": 0}, "'d.weight' is in none of them"),
    ],
)
def test_an_index_of_other_tensors(tmp_path, places, message):
    write_safetensors(tmp_path, TENSORS.items(), shard_bytes=24)
    path = tmp_path / "model.safetensors.index.json"
    files = names(tmp_path)[:-1]
    index = json.loads(path.read_text())
    # b and c share a file, so that leaving c out does not leave its file out.
    for name, number in places.items():
        if number is None:
            del index["weight_map"][name]
        else:
            index["weight_map"][name] = files[number]
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"index\.json: not the index .* {message}"):
        tensor_readers(tmp_path)


def test_derived_tensors_need_no_entry(tmp_path):
    derived = "model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors = {**TENSORS, derived: np.ones(2, np.float32)}
    write_safetensors(tmp_path, tensors.items(), shard_bytes=30)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    del index["weight_map"][derived]
    path.write_text(json.dumps(index))
    assert_read_back(tmp_path)


def test_a_disk_that_is_full(tmp_path):
    program = (
        "import pathlib, resource, sys, numpy\n"
        "from isara_jax.errors import EnvironmentFailure\n"
        "from isara_jax.models.formats.safetensors import write_safetensors\n"
        f"resource.setrlimit({resource.RLIMIT_FSIZE}, (20_000, 20_000))\n"
        "try:\n"
        "    tensors = {'a': numpy.ones(50_000)}\n"
        "    write_safetensors(pathlib.Path(sys.argv[1]), tensors.items())\n"
        "except EnvironmentFailure as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{tmp_path}: cannot be written (" in ran.stdout, ran.stderr
    assert "again" in ran.stdout
    assert "model.safetensors" not in names(tmp_path)


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(EnvironmentFailure, match="gone: cannot be written"):
        write_safetensors(tmp_path / "gone", TENSORS.items())


def test_one_shard_is_in_memory_at_a_time(tmp_path, monkeypatch):
    held = []

    def touch(path, group):
        path.touch()
        held.append(sum(value.nbytes for value in group.values()))

    monkeypatch.setattr(module, "write_file", touch)
    stream = ((f"t{n}", np.zeros(100, np.uint8)) for n in range(9))
    write_safetensors(tmp_path, stream, shard_bytes=250)
    assert held == [200] * 4 + [100]
