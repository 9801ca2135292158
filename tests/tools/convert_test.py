"""The command: what it writes, and what it does not keep."""

import json

import jax
import numpy as np
import pytest
import torch
import transformers
from conversion import contents, convert
from handoff import restored
from llama_files import reference_logits, write_llama, write_tokenizer
from peft_twin import adapted_twin, saved
from safetensors.numpy import load_file
from tiny_families import drawn

from isara_jax.models.checkpoints import verify as fidelity
from isara_jax.tools import convert as module

TOKENS = np.arange(12).reshape(2, 6)


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
    drawn("LLaMA 14 labels").save_pretrained(tmp_path / "hf")
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

    def wrong(opened, tokens, *, dtype):
        found = real(opened, tokens, dtype=dtype)
        return found if opened.path == whole / "hf" else found[::-1]

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


def test_a_device_that_is_too_small(whole, tmp_path, monkeypatch, capfd):
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(module, "outputs", full)
    assert convert(source=whole / "hf", target=tmp_path / "ours", verify=True) == 1
    assert "The device is out of memory" in capfd.readouterr().err
    assert contents(tmp_path) == []
