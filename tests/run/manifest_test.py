"""Hashes that change with what they stand for, and provenance that JSON can hold."""

import json

import pytest

from isara_jax.run import manifest as module
from isara_jax.run.manifest import (
    hash_bytes,
    hash_code,
    hash_inputs,
    hash_weights,
    provenance,
    versions,
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(bytes(range(200)) * 10)
    (path / "README.md").write_text("A card")
    return path


@pytest.fixture
def found(tmp_path, folder):
    (tmp_path / "seeds.jsonl").write_text("{}\n")
    (tmp_path / "heldout.jsonl").write_text("{}\n{}\n")

    def found(heldout="heldout.jsonl"):
        hashes = hash_inputs(
            model=folder,
            encoder=folder,
            seeds=tmp_path / "seeds.jsonl",
            heldout=tmp_path / heldout if heldout else None,
        )
        return provenance(hashes)

    return found


def test_the_provenance_is_json_of_no_value_but_text_and_numbers(found):
    about = found()
    assert json.loads(json.dumps(about)) == about
    assert set(about) == {"hashes", "versions", "code", "host", "created"}
    assert set(about["hashes"]) == {"model", "encoder", "seeds", "heldout"}
    assert about["host"]["backend"] == "cpu" and about["host"]["devices"] == 8
    assert about["created"].endswith("+00:00")


def test_no_heldout_set_has_no_hash(found):
    assert set(found(heldout="")["hashes"]) == {"model", "encoder", "seeds"}


def test_the_hash_of_the_seeds_is_that_of_their_bytes(found, tmp_path):
    before = found()["hashes"]
    (tmp_path / "seeds.jsonl").write_text("{} \n")
    after = found()["hashes"]
    assert {n for n in before if before[n] != after[n]} == {"seeds"}
    assert after["seeds"] == hash_bytes(b"{} \n")
    assert len(after["seeds"]) == 16


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{ }"),
        ("model.safetensors", b"other"),
        ("model-2.safetensors", b""),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_model_s_hash_is_of_its_weights_and_its_configs(folder, name, content):
    before = hash_weights(folder)
    (folder / name).write_bytes(content)
    assert hash_weights(folder) != before


def test_what_orbax_reads_counts_too(folder):
    before = hash_weights(folder)
    (folder / "orbax/d").mkdir(parents=True)
    assert hash_weights(folder) == before
    (folder / "orbax/d/0123").write_bytes(b"weights")
    assert hash_weights(folder) != before


def test_a_model_s_hash_is_of_nothing_else(folder):
    before = hash_weights(folder)
    (folder / "README.md").write_text("Another card")
    (folder / "onnx").mkdir()
    (folder / "weights.json").mkdir()
    assert hash_weights(folder) == before


@pytest.mark.parametrize("place", [0, 99, -1])
def test_of_a_large_file_the_ends_and_the_size_count(tmp_path, monkeypatch, place):
    monkeypatch.setattr(module, "SAMPLE", 100)
    file = tmp_path / "model.gguf"
    content = bytearray(500)
    file.write_bytes(content)
    before = hash_weights(file)
    file.write_bytes(content[1:])
    assert hash_weights(file) != before
    content[place] = 1
    file.write_bytes(content)
    assert hash_weights(file) != before


def test_a_small_file_counts_whole(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"abcde")
    before = hash_weights(file)
    file.write_bytes(b"abXde")
    assert hash_weights(file) != before


def test_versions_name_what_results_depend_on(monkeypatch):
    assert versions()["jax"] == module.jax.__version__
    monkeypatch.setattr(module, "PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] == "not installed"


def test_the_code_has_a_hash_that_stays():
    assert hash_code() == hash_code()
    assert len(hash_code()) == 16
