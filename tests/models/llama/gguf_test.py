"""What a GGUF file says of a LLaMA, and what its tensors say beside."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from llama_files import (
    gguf_metadata,
    gguf_tensors,
    write_gguf,
    write_llama,
)
from tiny_llama import ODD

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.load import load_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.layers.rope import RopeScaling
from isara_jax.models.llama.gguf import config_from_gguf
from isara_jax.runtime.mesh import make_mesh

GGUF = {
    "general.architecture": "llama",
    "general.name": "what a person called it",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 12,
    "llama.feed_forward_length": 10,
    "llama.attention.head_count": 6,
    "llama.attention.head_count_kv": 3,
    "llama.attention.layer_norm_rms_epsilon": 0.0010000000474974513,
    "llama.rope.freq_base": 500.0,
    "llama.rope.dimension_count": 4,
    "llama.vocab_size": 7,
    "tokenizer.ggml.tokens": list("abcdefg"),
}
LINEAR = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}


def from_gguf(metadata, *, tensors=(), factors=None):
    return config_from_gguf(
        ConfigReader(path=Path("f.gguf"), values=metadata),
        tensors=tensors,
        frequency_factors=factors,
    )


def test_the_metadata_are_read():
    assert from_gguf(GGUF) == ODD


@pytest.mark.parametrize(
    ("tensor", "changes"),
    [
        ("output.weight", {"tied_head": False}),
        ("blk.0.attn_q.bias", {"attention_bias": True}),
        ("blk.0.ffn_up.bias", {"mlp_bias": True}),
    ],
)
def test_tensors_show_what_the_metadata_leave_open(tensor, changes):
    expected = dataclasses.replace(ODD, **changes)
    assert from_gguf(GGUF, tensors=[tensor]) == expected


def test_keys_that_llama_cpp_may_leave_out():
    optional = ("attention.head_count_kv", "rope.freq_base", "rope.dimension_count")
    left = {f"llama.{key}" for key in optional}
    config = from_gguf({key: GGUF[key] for key in GGUF.keys() - left})
    assert (config.kv_heads, config.rope_base, config.head_size) == (6, 10_000.0, 2)


def test_linear_scaling_is_read():
    scaling = RopeScaling(kind="linear", factor=4.0)
    assert from_gguf(GGUF | LINEAR).rope_scaling == scaling
    assert from_gguf(GGUF | {"llama.rope.scaling.type": "none"}) == ODD


def llama3_factors(factor, *, head_size=128, base=5e5, low=1.0, context=8192):
    """Returns what llama.cpp's converter writes, from its own account of it."""
    frequencies = base ** -(np.arange(0, head_size, 2) / head_size)
    waves = 2 * np.pi / frequencies
    share = (context / waves - low) / (4.0 - low)
    blended = 1 / ((1 - share) / factor + share)
    shortened = np.where(waves < context / 4.0, 1.0, blended)
    return np.where(waves > context / low, factor, shortened).astype(np.float32)


LONG = GGUF | {
    "llama.embedding_length": 768,
    "llama.rope.dimension_count": 128,
    "llama.rope.freq_base": 5e5,
}


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_factors_of_llama_3_are_recognised(factor):
    expected = RopeScaling(
        kind="llama3", factor=factor, low=1.0, high=4.0, original_context=8192
    )
    factors = llama3_factors(factor)
    assert len(np.unique(factors)) > 3, "some are blended"
    assert from_gguf(LONG, factors=factors).rope_scaling == expected


def test_factors_of_one_scale_nothing():
    config = from_gguf(LONG, factors=np.ones(64, np.float32))
    assert config.rope_scaling is None


@pytest.mark.parametrize(
    "factors",
    [
        llama3_factors(16.0),
        llama3_factors(8.0, low=2.0),
        llama3_factors(8.0, context=4096),
        llama3_factors(8.0)[:32],
        np.zeros(64, np.float32),
        np.full(64, np.nan, np.float32),
    ],
)
def test_other_factors_are_refused(factors):
    with pytest.raises(InputError, match=r"^f\.gguf: the tensor 'rope_freqs\.weight'"):
        from_gguf(LONG, factors=factors)


def test_two_scalings_at_once_are_refused():
    with pytest.raises(InputError, match=r"scaling\.type='linear', and rope_freqs"):
        from_gguf(LONG | LINEAR, factors=llama3_factors(8.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "qwen2"}, "general.architecture='qwen2', expected"),
        ({"general.architecture": None}, "general.architecture=None, expected"),
        ({"llama.rope.scaling.type": "yarn"}, "type='yarn', expected one of none, lin"),
        ({"llama.rope.scaling.type": "linear"}, "scaling.factor=None, expected a num"),
        ({"llama.rope.scaling.factor": 2.0}, "scaling.factor=2.0, expected None"),
        ({"llama.expert_count": 8}, "llama.expert_count=8, an attribute that is"),
        ({"llama.block_count": None}, "llama.block_count=None, expected a whole"),
        ({"llama.block_count": "x"}, "llama.block_count='x', expected a whole"),
        ({"llama.attention.head_count": [6, 6]}, r"head_count=\[6, 6\], expected"),
        ({"llama.attention.head_count_kv": 4}, "head_count_kv=4, expected a divisor"),
        ({"llama.rope.dimension_count": 3}, "dimension_count=3, expected an even"),
        ({"llama.rope.freq_base": 0.0}, "freq_base=0.0, expected a number"),
        (
            {"llama.attention.layer_norm_rms_epsilon": None},
            "layer_norm_rms_epsilon=None, expected a number",
        ),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens is no list"),
        ({"tokenizer.ggml.tokens": "abc"}, "tokenizer.ggml.tokens is no list"),
    ],
)
def test_metadata_refused(changes, message):
    with pytest.raises(InputError, match=rf"^f\.gguf: .*{message}"):
        from_gguf(GGUF | changes)


ROPE = {"rope_theta": 5e5, "factor": 8.0}
LLAMA3 = ROPE | {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("kind", ["biases", "linear", "llama3"])
def test_a_file_is_the_folder_s_model(tmp_path, kind):
    attributes = {
        "biases": {"attention_bias": True, "mlp_bias": True},
        "linear": {"rope_parameters": ROPE | {"rope_type": "linear"}},
        "llama3": {"rope_parameters": LLAMA3},
    }[kind]
    reference = write_llama(tmp_path, rms_norm_eps=1e-5, **attributes)
    metadata, tensors = gguf_metadata(reference), gguf_tensors(reference)
    if kind == "linear":
        metadata |= LINEAR | {"llama.rope.scaling.factor": 8.0}
    if kind == "llama3":
        size = reference.config.head_dim
        tensors["rope_freqs.weight"] = llama3_factors(8.0, head_size=size)
    path = write_gguf(tmp_path / "m.gguf", metadata, tensors)
    assert open_model(path).config == open_model(tmp_path).config
    mesh = make_mesh(data=1, model=1)
    read = dict(named_tensors(load_model(open_model(path), dtype="float32", mesh=mesh)))
    expected = reference.state_dict()
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value.numpy(), err_msg=name)
