"""Which files are a model, and what is refused with which sentence."""

import numpy as np
import pytest
from changes import change_json, change_tensors
from llama_files import gguf_metadata, gguf_tensors, write_gguf, write_llama

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh


def load(source):
    mesh = make_mesh(data=1, model=1)
    return load_model(open_model(source), dtype="float32", mesh=mesh)


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


@pytest.mark.parametrize("licence", ["apache-2.0", None])
def test_licence_of_a_gguf_file(tmp_path, licence):
    reference = write_llama(tmp_path)
    metadata = gguf_metadata(reference) | {"general.license": licence}
    path = write_gguf(tmp_path / "m.gguf", metadata, gguf_tensors(reference))
    assert open_model(path).licence == (licence or "")
