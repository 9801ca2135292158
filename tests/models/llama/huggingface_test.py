import dataclasses
from pathlib import Path

import pytest
import transformers
from tiny_llama import ODD

from isara_jax.errors import InputError
from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.layers.rope import RopeScaling
from isara_jax.models.layers.score_head import ScoreHead
from isara_jax.models.llama.huggingface import (
    config_from_hf,
    config_to_hf,
    tensor_maps,
)

HUGGING_FACE = config_to_hf(ODD, dtype="float32")


def without(attributes, *names):
    return {k: v for k, v in attributes.items() if k not in names}


def from_hugging_face(attributes):
    return config_from_hf(ConfigReader(path=Path("f/config.json"), values=attributes))


def test_a_config_comes_back_as_it_went():
    assert from_hugging_face(HUGGING_FACE) == ODD


def test_transformers_reads_the_config_as_we_do():
    theirs = transformers.LlamaConfig(**HUGGING_FACE)
    assert theirs.head_dim == ODD.head_size
    assert theirs.rope_parameters["rope_theta"] == ODD.rope_base
    assert from_hugging_face(theirs.to_dict()) == ODD


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logit_scale": 2}, "logit_scale=2, an attribute that is unknown"),
        ({"quantization_config": {}}, "quantization_config={}, an attribute"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu', expected 'silu'"),
        ({"rope_interleaved": True}, "rope_interleaved=True, expected False"),
        ({"attention_bias": 1}, "attention_bias=1, expected true or false"),
        ({"mlp_bias": "no"}, "mlp_bias='no', expected true or false"),
        ({"sliding_window": 0}, "sliding_window=0, expected a whole number above 0"),
        ({"sliding_window": True}, "sliding_window=True, expected a whole number"),
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


VARIANTS = {
    "Mistral": {"window": 9},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "attention biases": {"attention_bias": True},
    "linear scaling": {"rope_scaling": RopeScaling(kind="linear", factor=4.0)},
    "llama3 scaling": {
        "rope_scaling": RopeScaling(
            kind="llama3", factor=8.0, low=2.0, high=3.0, original_context=32
        )
    },
    "labels": {"score": ScoreHead(labels=14, bias=False, name="score")},
    "score": {"score": ScoreHead(labels=1, bias=True, name="score_head")},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_comes_back_as_it_went(variant):
    config = dataclasses.replace(ODD, **VARIANTS[variant])
    attributes = config_to_hf(config, dtype="float32")
    assert from_hugging_face(attributes) == config


def test_only_a_model_with_a_window_is_called_mistral():
    names = [
        config_to_hf(dataclasses.replace(ODD, window=window), dtype="float32")[
            "model_type"
        ]
        for window in (None, 9)
    ]
    assert names == ["llama", "mistral"]


@pytest.mark.parametrize("tied_head", [True, False])
def test_every_tensor_of_transformers_has_its_format(tied_head):
    attributes = HUGGING_FACE | {"tie_word_embeddings": tied_head}
    config = from_hugging_face(attributes)
    names = {
        tensor.name.format(number)
        for tensor in tensor_maps(config)
        for number in range(config.layers)
    }
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**attributes))
    expected = set(theirs.state_dict())
    assert names == expected - ({"lm_head.weight"} if tied_head else set())
