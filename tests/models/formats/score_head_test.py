"""Score heads out of config files, and back."""

from pathlib import Path

import pytest

from isara_jax.errors import InputError
from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.formats.score_head import (
    SCORE_ATTRIBUTES,
    architecture_attributes,
    score_head,
    score_tensors,
)
from isara_jax.models.layers.score_head import ScoreHead

# What safe-rlhf writes into a reward model's config besides LLaMA's own attributes.
SAFE_RLHF = {
    "architectures": ["LlamaForScore"],
    "score_dim": 1,
    "score_type": "reward",
    "bias": True,
    "do_normalize": False,
    "normalizer_type": "ExponentialMovingAverage",
    "momentum": 0.9,
    "mean": [1.5],
    "var": [2.5],
}
CLASSIFICATION = {"architectures": ["LlamaForSequenceClassification"]}


def head_of(values):
    a = ConfigReader(path=Path("f/config.json"), values=values)
    return score_head(a)


@pytest.mark.parametrize(
    ("values", "head"),
    [
        ({}, None),
        ({"architectures": None}, None),
        ({"architectures": ["LlamaForCausalLM"], "id2label": {"0": "a"}}, None),
        (CLASSIFICATION, ScoreHead(labels=2, bias=False, name="score")),
        (
            CLASSIFICATION | {"id2label": {str(n): f"x{n}" for n in range(14)}},
            ScoreHead(labels=14, bias=False, name="score"),
        ),
        (
            CLASSIFICATION | {"num_labels": 3},
            ScoreHead(labels=3, bias=False, name="score"),
        ),
        (SAFE_RLHF, ScoreHead(labels=1, bias=True, name="score_head")),
        (
            {"architectures": ["LlamaModelForScore"], "score_dim": 4},
            ScoreHead(labels=4, bias=False, name="score_head"),
        ),
    ],
)
def test_the_head_is_read(values, head):
    assert head_of(values) == head


def test_everything_that_safe_rlhf_writes_is_known():
    assert SAFE_RLHF.keys() - SCORE_ATTRIBUTES == {"architectures"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (SAFE_RLHF | {"do_normalize": True}, "do_normalize=True, expected false"),
        (SAFE_RLHF | {"score_dim": 0}, "score_dim=0, expected a whole number"),
        (SAFE_RLHF | {"bias": "no"}, "bias='no', expected true or false"),
        (CLASSIFICATION | {"num_labels": "2"}, "num_labels='2', expected a whole"),
    ],
)
def test_head_refused(values, message):
    with pytest.raises(InputError, match=rf"^f/config\.json: {message}"):
        head_of(values)


@pytest.mark.parametrize(
    "head",
    [
        None,
        ScoreHead(labels=14, bias=False, name="score"),
        ScoreHead(labels=1, bias=True, name="score_head"),
        ScoreHead(labels=2, bias=False, name="score_head"),
    ],
)
def test_what_is_written_is_read(head):
    assert head_of(architecture_attributes(head, family="Llama")) == head


def test_the_parameters_are_named_as_the_head_is():
    names = [f.name for f in score_tensors(ScoreHead(labels=1, bias=True, name="x"))]
    assert names == ["x.weight", "x.bias"]
    without = score_tensors(ScoreHead(labels=1, bias=False, name="x"))
    assert [f.name for f in without] == ["x.weight"]
    assert score_tensors(None) == []
