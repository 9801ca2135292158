"""OPT's config attributes: read, written, and refused by their names."""

import dataclasses
from pathlib import Path

import pytest
import transformers
from tiny_opt import TINY_OPT

from isara_jax.errors import InputError
from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.layers.score_head import ScoreHead
from isara_jax.models.opt.huggingface import (
    config_from_hf,
    config_to_hf,
)

HUGGING_FACE = config_to_hf(TINY_OPT, dtype="float32")
VARIANTS = {
    "125m": {},
    "350m": {"embedding_width": 16, "pre_norm": False, "final_norm": False},
    "no final norm": {"final_norm": False},
    "gelu": {"activation": "gelu", "biases": False},
    "untied": {"tied_head": False},
    "labels": {"score": ScoreHead(labels=3, bias=False, name="score")},
}


def read(values):
    a = ConfigReader(path=Path("f/config.json"), values=values)
    return config_from_hf(a)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_comes_back_as_it_went(variant):
    config = dataclasses.replace(TINY_OPT, **VARIANTS[variant])
    attributes = config_to_hf(config, dtype="float32")
    assert read(attributes) == config
    theirs = transformers.OPTConfig(**attributes).to_dict()
    assert read(theirs) == config


def test_transformers_defaults_are_ours():
    sizes = {
        "vocab_size": 97,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 128,
    }
    theirs = transformers.OPTConfig(**sizes).to_dict()
    assert read({"model_type": "opt", **sizes}) == read(theirs) == TINY_OPT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logit_scale": 2}, "logit_scale=2, an attribute that is unknown"),
        ({"activation_function": "tanh"}, "activation_function='tanh', expected one"),
        ({"activation_function": ["relu"]}, r"activation_function=\['relu'\], expect"),
        ({"num_attention_heads": 5}, "num_attention_heads=5, expected a divisor of 32"),
        ({"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine=Fa"),
        ({"enable_bias": "yes"}, "enable_bias='yes', expected true or false"),
        ({"do_layer_norm_before": 1}, "do_layer_norm_before=1, expected true or"),
        ({"ffn_dim": 0}, "ffn_dim=0, expected a whole number above 0"),
        ({"word_embed_proj_dim": "x"}, "word_embed_proj_dim='x', expected a whole"),
    ],
)
def test_config_refused(changes, message):
    with pytest.raises(InputError, match=rf"^f/config\.json: {message}"):
        read(HUGGING_FACE | changes)
