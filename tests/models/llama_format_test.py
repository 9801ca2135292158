from pathlib import Path

import pytest
import transformers

from isara_jax.errors import InputError
from isara_jax.models.attributes import Attributes
from isara_jax.models.llama import LlamaConfig
from isara_jax.models.llama_format import (
    config_from_gguf,
    config_from_hugging_face,
    config_to_hugging_face,
    tensor_formats,
)

CONFIG = LlamaConfig(
    vocab_size=7,
    width=12,
    layers=2,
    heads=6,
    kv_heads=3,
    head_size=4,
    feed_forward=10,
    context=64,
    rope_base=500.0,
    norm_epsilon=1e-3,
    tied_head=True,
)
HUGGING_FACE = config_to_hugging_face(CONFIG, dtype="float32")
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


def without(attributes, *names):
    return {k: v for k, v in attributes.items() if k not in names}


def from_hugging_face(attributes):
    return config_from_hugging_face(
        Attributes(place=Path("f/config.json"), values=attributes)
    )


def from_gguf(metadata, *, tied_head=True):
    return config_from_gguf(
        Attributes(place=Path("f.gguf"), values=metadata), tied_head=tied_head
    )


def test_a_config_comes_back_as_it_went():
    assert from_hugging_face(HUGGING_FACE) == CONFIG


def test_transformers_reads_the_config_as_we_do():
    theirs = transformers.LlamaConfig(**HUGGING_FACE)
    assert theirs.head_dim == CONFIG.head_size
    assert theirs.rope_parameters["rope_theta"] == CONFIG.rope_base
    assert from_hugging_face(theirs.to_dict()) == CONFIG


def test_transformers_defaults_are_ours():
    sizes = {
        "vocab_size": 7,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "intermediate_size": 10,
        "max_position_embeddings": 64,
    }
    theirs = transformers.LlamaConfig(**sizes)
    ours = from_hugging_face({"model_type": "llama", **sizes})
    assert ours == from_hugging_face(theirs.to_dict())
    assert (ours.kv_heads, ours.head_size) == (6, 4)


def test_rope_base_of_older_files():
    attributes = without(HUGGING_FACE, "rope_parameters") | {"rope_scaling": None}
    assert from_hugging_face(attributes).rope_base == 500.0
    attributes["rope_parameters"] = {"rope_type": "default", "rope_theta": 7.0}
    assert from_hugging_face(attributes).rope_base == 7.0


LLAMA3 = {"rope_type": "llama3", "factor": 8.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type='mistral', expected 'llama'"),
        ({"model_type": None}, "model_type=None, expected 'llama'"),
        ({"model_type": ["llama"]}, r"model_type=\['llama'\], expected 'llama'"),
        ({"logit_scale": 2}, "logit_scale=2, an attribute that is unknown"),
        ({"quantization_config": {}}, "quantization_config={}, an attribute"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu', expected 'silu'"),
        ({"rope_scaling": LLAMA3}, "rope_scaling=.*llama3.*, expected None"),
        ({"rope_parameters": LLAMA3}, "rope_parameters=.*, expected rope_type"),
        ({"rope_parameters": {"factor": 8.0}}, "factor=8.0, an attribute that"),
        ({"rope_parameters": "default"}, "rope_parameters='default', expected a JSON"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta='x', expected a number"),
        ({"rope_interleaved": True}, "rope_interleaved=True, expected False"),
        ({"attention_bias": True}, "attention_bias=True, expected False"),
        ({"mlp_bias": True}, "mlp_bias=True, expected False"),
        ({"sliding_window": 4096}, "sliding_window=4096, expected None"),
        ({"num_attention_heads": "x"}, "num_attention_heads='x', expected a whole"),
        ({"num_hidden_layers": -2}, "num_hidden_layers=-2, expected a whole"),
        ({"vocab_size": None}, "vocab_size=None, expected a whole"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps='x', expected a number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings='no', expected true or"),
        ({"num_key_value_heads": 4}, "num_key_value_heads=4, expected a divisor of 6"),
        ({"head_dim": 5}, "head_dim=5, expected an even number"),
        ({"hidden_size": 5, "head_dim": None}, "head_dim=0, expected a whole"),
    ],
)
def test_config_refused(changes, message):
    with pytest.raises(InputError, match=rf"^f/config\.json: {message}"):
        from_hugging_face(HUGGING_FACE | changes)


@pytest.mark.parametrize("tied_head", [True, False])
def test_gguf_metadata_are_read(tied_head):
    config = from_gguf(GGUF, tied_head=tied_head)
    assert config.tied_head == tied_head
    assert config == from_hugging_face(
        HUGGING_FACE | {"tie_word_embeddings": tied_head}
    )


def test_gguf_keys_that_llama_cpp_may_leave_out():
    optional = ("attention.head_count_kv", "rope.freq_base", "rope.dimension_count")
    config = from_gguf(without(GGUF, *(f"llama.{key}" for key in optional)))
    assert (config.kv_heads, config.rope_base, config.head_size) == (6, 10_000.0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "qwen2"}, "general.architecture='qwen2', expected"),
        ({"general.architecture": None}, "general.architecture=None, expected"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type='yarn', an"),
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
def test_gguf_metadata_refused(changes, message):
    with pytest.raises(InputError, match=rf"^f\.gguf: .*{message}"):
        from_gguf(GGUF | changes)


@pytest.mark.parametrize("tied_head", [True, False])
def test_every_tensor_of_transformers_has_its_format(tied_head):
    attributes = HUGGING_FACE | {"tie_word_embeddings": tied_head}
    config = from_hugging_face(attributes)
    names = {
        tensor.name.format(number)
        for tensor in tensor_formats(config)
        for number in range(config.layers)
    }
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**attributes))
    expected = set(theirs.state_dict())
    assert names == expected - ({"lm_head.weight"} if tied_head else set())
