"""The command: what it writes, what it refuses, and that nothing half done is left."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from absl import flags
from damage import GGUF, ORBAX, SAFETENSORS
from handoff import restored
from llama_files import (
    gguf_metadata,
    gguf_tensors,
    reference_logits,
    write_gguf,
    write_llama,
    write_tokenizer,
)
from peft_twin import adapted_twin, saved
from safetensors.numpy import load_file

from isara_jax import command
from isara_jax.models import fidelity
from isara_jax.models.shards import write_safetensors
from isara_jax.sections import define_sections, sections_from_flags
from isara_jax.tools import convert as module

ROOT = Path(__file__).parent.parent.parent
TOKENS = np.arange(12).reshape(2, 6)


def convert(**values):
    """Runs the command in this process; returns its exit code."""
    own = flags.FlagValues()
    define_sections(module.SECTIONS, own)
    own(["convert", *(f"--{name}={value}" for name, value in values.items())])
    return command.exit_code(
        ["convert"],
        work=lambda: module.work(sections_from_flags(module.SECTIONS, own)["job"]),
        module=module.__name__,
        to_save_memory="",
    )


def write_folder(folder, **attributes):
    """Writes a LLaMA in several files with an index, and its tokenizer."""
    reference = write_llama(folder, shard_size="20KB", **attributes)
    write_tokenizer(folder)
    return reference


def write_gguf_file(path, reference):
    """Writes the model with a vocabulary that transformers turns into a tokenizer."""
    size = reference.config.vocab_size
    words = [f"\u2581{chr(97 + number)}" for number in range(size - 3)]
    metadata = gguf_metadata(reference) | {
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *words],
        "tokenizer.ggml.scores": [float(-number) for number in range(size)],
        "tokenizer.ggml.token_type": [2, 3, 3, *[1] * (size - 3)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return write_gguf(path, metadata, gguf_tensors(reference))


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One model as a folder, as an Orbax folder and as a GGUF file."""
    place = tmp_path_factory.mktemp("whole")
    reference = write_folder(place / "hf", rms_norm_eps=1e-5)
    write_gguf_file(place / "m.gguf", reference)
    values = {"source": place / "hf", "target": place / "orbax", "to": "orbax"}
    assert convert(**values, dtype="float32") == 0
    return place


@pytest.mark.parametrize("source", ["hf", "orbax", "m.gguf"])
@pytest.mark.parametrize("to", ["hf", "orbax"])
def test_every_source_becomes_every_target(whole, tmp_path, source, to, capfd):
    target = tmp_path / "a" / "ours"
    code = convert(
        source=whole / source, target=target, to=to, dtype="float32", verify=True
    )
    told = capfd.readouterr()
    assert code == 0, told.err
    assert told.out.splitlines()[-1] == str(target)
    assert "largest difference of the logits 0, mean KL 0 nats (at most" in told.out
    assert "convert: 30 of 30 tensors" in told.err
    weights = ["orbax"] if to == "orbax" else ["model.safetensors"]
    assert set(contents(target)) >= {
        *weights,
        *("config.json", "generation_config.json", "tokenizer.json", "README.md"),
    }
    assert contents(target.parent) == ["ours"]
    expected = write_llama(tmp_path / "again", rms_norm_eps=1e-5).state_dict()
    if to == "hf":
        model = transformers.AutoModelForCausalLM.from_pretrained(target)
        for name, value in expected.items():
            assert torch.equal(model.state_dict()[name], value)
    else:
        assert restored(target).keys() == expected.keys()


def test_transformers_says_of_a_converted_gguf_what_the_folder_says(whole, tmp_path):
    target = tmp_path / "ours"
    assert convert(source=whole / "m.gguf", target=target, dtype="float32") == 0
    theirs, ours = (
        transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        for folder in (whole / "hf", target)
    )
    np.testing.assert_array_equal(
        reference_logits(theirs, TOKENS), reference_logits(ours, TOKENS)
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    assert tokenizer.eos_token_id == 2


def test_an_adapter_is_merged_into_what_is_written(whole, tmp_path, capfd):
    twin = transformers.AutoModelForCausalLM.from_pretrained(whole / "hf").eval()
    model = adapted_twin(twin, ["q_proj", "o_proj", "down_proj"])
    adapter, target = saved(model, tmp_path / "adapter"), tmp_path / "ours"
    values = {"source": whole / "m.gguf", "adapter": adapter, "target": target}
    assert convert(**values, dtype="float32", verify=True) == 0, capfd.readouterr()
    ours = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    np.testing.assert_allclose(
        reference_logits(ours, TOKENS), reference_logits(model, TOKENS), atol=1e-4
    )
    assert f"adapter `{adapter}`, merged" in (target / "README.md").read_text()


def test_bf16_is_what_is_written_unless_told_otherwise(whole, tmp_path, capfd):
    target = tmp_path / "ours"
    assert convert(source=whole / "hf", target=target, verify=True) == 0
    tensors = load_file(target / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"bfloat16"}
    told = capfd.readouterr().out
    assert "(at most 0.1)" in told and "logits 0," not in told


def test_a_classifier_is_verified_by_its_scores(tmp_path, capfd):
    write_tokenizer(tmp_path / "hf")
    config = transformers.LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=14,
    )
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "hf")
    code = convert(source=tmp_path / "hf", target=tmp_path / "ours", verify=True)
    told = capfd.readouterr()
    assert code == 0, told.err
    assert "largest difference of the scores" in told.out
    labels = json.loads((tmp_path / "ours/config.json").read_text())["id2label"]
    assert len(labels) == 14


def test_a_model_that_says_something_else_is_not_kept(
    whole, tmp_path, monkeypatch, capfd
):
    real = fidelity.outputs

    def wrong(source, tokens, *, dtype):
        found = real(source, tokens, dtype=dtype)
        return found if source == whole / "hf" else found[::-1]

    monkeypatch.setattr(module, "outputs", wrong)
    code = convert(source=whole / "hf", target=tmp_path / "ours", verify=True)
    told = capfd.readouterr()
    assert code == 1
    assert "nats a token from its source, and rounding to bfloat16 explains 0.1" in (
        told.err
    )
    assert contents(tmp_path) == []


def test_a_tokenizer_that_splits_another_way_is_not_kept(
    whole, tmp_path, monkeypatch, capfd
):
    real = fidelity.text_tokens
    seen = []

    def wrong(tokenizer, *, context):
        seen.append(1)
        return real(tokenizer, context=context)[len(seen) - 1 :]

    monkeypatch.setattr(module, "text_tokens", wrong)
    assert convert(source=whole / "hf", target=tmp_path / "ours", verify=True) == 1
    assert "splits a text in another way" in capfd.readouterr().err
    assert contents(tmp_path) == []


# Targets


def test_a_target_that_is_there_is_left_alone(whole, tmp_path, capfd):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/mine.txt").touch()
    assert convert(source=whole / "hf", target=tmp_path / "ours") == 2
    assert "ours: exists already; choose another" in capfd.readouterr().err
    assert contents(tmp_path / "ours") == ["mine.txt"]


def test_a_model_s_folder_is_replaced_where_that_is_asked_for(whole, tmp_path):
    target = tmp_path / "ours"
    shutil.copytree(whole / "hf", target)
    (target / "old.txt").touch()
    assert convert(source=whole / "hf", target=target, overwrite=True) == 0
    assert "model.safetensors" in contents(target)
    assert "old.txt" not in contents(target)
    assert contents(tmp_path) == ["ours"]


def test_an_empty_folder_is_replaced_where_that_is_asked_for(whole, tmp_path):
    (tmp_path / "ours").mkdir()
    values = {"source": whole / "hf", "target": tmp_path / "ours"}
    assert convert(**values, overwrite=True) == 0
    assert "model.safetensors" in contents(tmp_path / "ours")


def test_what_is_no_model_is_never_replaced(whole, tmp_path, capfd):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("home", "file"):
        values = {"source": whole / "hf", "target": tmp_path / name}
        assert convert(**values, overwrite=True) == 2
        assert "replaces a model's folder only" in capfd.readouterr().err
    assert contents(tmp_path / "home") == ["thesis.tex"]


def test_a_source_is_never_written_over(tmp_path, capfd):
    write_folder(tmp_path / "models/theirs")
    before = contents(tmp_path / "models/theirs")
    (tmp_path / "link").symlink_to(tmp_path / "models/theirs")
    for target in ("models/theirs", "models", "link"):
        values = {"source": tmp_path / "models/theirs", "target": tmp_path / target}
        assert convert(**values, overwrite=True) == 2
        assert "holds the source" in capfd.readouterr().err
    assert contents(tmp_path / "models/theirs") == before


def test_a_target_in_a_file(whole, tmp_path, capfd):
    (tmp_path / "file").touch()
    assert convert(source=whole / "hf", target=tmp_path / "file/ours") == 2
    assert "lies in a file" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["source", "target"])
def test_both_must_be_given(name, capfd):
    values = {"source": "a", "target": "b"} | {name: ""}
    assert convert(**values) == 2
    assert f"--{name}: must be given" in capfd.readouterr().err


def test_a_source_that_is_not_there(tmp_path, capfd):
    assert convert(source=tmp_path / "gone", target=tmp_path / "ours") == 2
    assert "no such file or folder" in capfd.readouterr().err
    assert contents(tmp_path) == []


# Damage


def assert_one_sentence(told, folder):
    """Checks what a refusal wrote: a sentence, and progress at the most before it."""
    lines = [line for line in told.err.splitlines() if not line.startswith("convert: ")]
    assert len(lines) == 1 and 20 < len(lines[0]) < 700, told.err
    assert "Traceback" not in told.err and told.out == ""
    assert contents(folder) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (kind, damage)
        for kind, damages in (("hf", SAFETENSORS), ("orbax", ORBAX), ("m.gguf", GGUF))
        for damage in damages
    ],
)
def test_damaged_sources(whole, tmp_path, kind, damage, capfd):
    source = tmp_path / "source" / kind
    source.parent.mkdir()
    copy = shutil.copytree if (whole / kind).is_dir() else shutil.copyfile
    copy(whole / kind, source)
    {"hf": SAFETENSORS, "orbax": ORBAX, "m.gguf": GGUF}[kind][damage](source)
    (tmp_path / "targets").mkdir()
    began = time.monotonic()
    code = convert(source=source, target=tmp_path / "targets/ours", dtype="float32")
    assert code == 2
    assert time.monotonic() - began < 20
    assert_one_sentence(capfd.readouterr(), tmp_path / "targets")


# Interruption


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A model of many tensors, so that a signal meets the conversion at work."""
    folder = tmp_path_factory.mktemp("slow") / "hf"
    write_folder(folder, num_hidden_layers=1)
    layer = {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    many = dict(layer)
    for number in range(600):
        for name, tensor in layer.items():
            many[name.replace("layers.0.", f"layers.{number}.")] = tensor
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    write_safetensors(folder, many.items())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 600}))
    return folder


@pytest.mark.parametrize(
    ("stop", "to", "left"),
    [
        (signal.SIGINT, "hf", []),
        (signal.SIGTERM, "orbax", []),
        (signal.SIGKILL, "orbax", [".ours.partial"]),
    ],
)
def test_a_stopped_conversion_leaves_no_target(slow, tmp_path, stop, to, left):
    target = tmp_path / "ours"
    with subprocess.Popen(
        [
            *(sys.executable, "-m", module.__name__, f"--source={slow}"),
            *(f"--target={target}", f"--to={to}"),
        ],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        for line in running.stderr:
            if line.startswith("convert: 0 of"):
                break
        running.send_signal(stop)
        told = running.stderr.read()
    assert running.returncode == (-stop if stop == signal.SIGKILL else 1)
    assert contents(tmp_path) == left
    if not left:
        assert told.splitlines()[-1] == f"Stopped; nothing of {target} was written"
        return
    with contextlib.suppress(FileNotFoundError):
        assert "config.json" not in contents(tmp_path / left[0])
    small = slow.parent / "small"
    if not small.exists():
        write_folder(small)
    assert convert(source=small, target=target) == 0
    assert contents(tmp_path) == ["ours"]


def test_a_device_that_is_too_small(whole, tmp_path, monkeypatch, capfd):
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(module, "outputs", full)
    assert convert(source=whole / "hf", target=tmp_path / "ours", verify=True) == 1
    assert "The device is out of memory" in capfd.readouterr().err
    assert contents(tmp_path) == []
