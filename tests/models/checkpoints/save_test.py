"""A folder that we wrote, read back by transformers and by us."""

import json

import numpy as np
import pytest
import torch
import transformers
from llama_files import (
    SHAPES,
    reference_logits,
    write_llama,
    write_tokenizer,
)
from safetensors.numpy import load_file
from whole_rows import logits_of

from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.checkpoints.save import save_hugging_face
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.tokenizer import load_tokenizer

TEXT = "what is it that the cat sat on ?"


def write_source(folder, **attributes):
    write_llama(folder, **attributes)
    write_tokenizer(folder)
    return folder


def save(source, folder, *, dtype="float32", data=1, model=1):
    model = load_model(
        open_model(source), dtype=dtype, mesh=make_mesh(data=data, model=model)
    )
    save_hugging_face(folder, model, load_tokenizer(source))
    return model


def read_json(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_loads_it_and_gives_our_logits(tmp_path, shape):
    model = save(write_source(tmp_path / "theirs", **SHAPES[shape]), tmp_path / "ours")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    tokens = np.arange(12).reshape(2, 6)
    np.testing.assert_allclose(
        logits_of(model, tokens), reference_logits(loaded, tokens), atol=1e-4
    )


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_tensors_and_config_come_out_as_they_went_in(tmp_path, dtype, torch_dtype):
    source = write_source(tmp_path / "theirs", dtype=torch_dtype)
    save(source, tmp_path / "ours", dtype=dtype)
    ours = load_file(tmp_path / "ours/model.safetensors")
    theirs = load_file(source / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert ours[name].tobytes() == value.tobytes(), name
    assert open_model(tmp_path / "ours").config == open_model(source).config
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert loaded.dtype == torch_dtype


def test_a_model_spread_over_a_mesh_is_gathered(tmp_path):
    source = write_source(tmp_path / "theirs")
    save(source, tmp_path / "alone")
    save(source, tmp_path / "spread", data=2, model=4)
    alone, spread = (
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("alone", "spread")
    )
    assert alone == spread


def test_the_tokenizer_goes_with_it(tmp_path):
    source = write_source(tmp_path / "theirs")
    save(source, tmp_path / "ours")
    tokenizer = load_tokenizer(tmp_path / "ours")
    assert tokenizer.encode(TEXT) == load_tokenizer(source).encode(TEXT)
    config = read_json(tmp_path / "ours/config.json")
    assert config["bos_token_id"] is None
    assert config["eos_token_id"] == tokenizer.eos[0] == 2
    assert read_json(tmp_path / "ours/generation_config.json") == {"eos_token_id": 2}


def test_every_end_of_text_goes_with_it(tmp_path):
    source = write_source(tmp_path / "theirs")
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    save(source, tmp_path / "ours")
    assert read_json(tmp_path / "ours/config.json")["eos_token_id"] == [2, 5]
    assert load_tokenizer(tmp_path / "ours").eos == (2, 5)


def test_transformers_stops_where_we_stop(tmp_path):
    source = write_source(tmp_path / "theirs")
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    save(source, tmp_path / "ours")
    loaded = transformers.GenerationConfig.from_pretrained(tmp_path / "ours")
    assert loaded.eos_token_id == [2, 5]
