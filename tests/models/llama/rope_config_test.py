"""Rotary positions out of old files and new ones, and what is refused."""

import dataclasses
from pathlib import Path

import pytest
from tiny_llama import TINY

from isara_jax.errors import InputError
from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.layers.rope import RopeScaling
from isara_jax.models.llama.rope_config import rope_attributes, rope_base, rope_scaling

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 2.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 32,
}


def attributes(**values):
    return ConfigReader(path=Path("f/config.json"), values=values)


@pytest.mark.parametrize(
    ("values", "base"),
    [
        ({}, 10_000.0),
        ({"rope_theta": 500.0, "rope_scaling": None}, 500.0),
        ({"rope_parameters": {"rope_theta": 7.0}}, 7.0),
        ({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 7.0}}, 7.0),
        ({"rope_theta": 500.0, "rope_parameters": {}}, 500.0),
    ],
)
def test_the_base(values, base):
    assert rope_base(attributes(**values)) == base
    assert rope_scaling(attributes(**values)) is None


LINEAR = RopeScaling(kind="linear", factor=4.0)
OF_LLAMA3 = RopeScaling(
    kind="llama3", factor=8.0, low=2.0, high=3.0, original_context=32
)


@pytest.mark.parametrize(
    ("values", "scaling"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 4}}, LINEAR),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, LINEAR),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, LINEAR),
        ({"rope_scaling": LLAMA3}, OF_LLAMA3),
        ({"rope_parameters": LLAMA3 | {"rope_theta": 7.0}}, OF_LLAMA3),
        ({"rope_parameters": {"rope_type": "default"}}, None),
    ],
)
def test_the_scaling(values, scaling):
    assert rope_scaling(attributes(**values)) == scaling


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope", "su", None, 3])
def test_another_kind_is_refused_by_its_name(kind):
    message = rf"json: rope_parameters={{.*{kind!r}.*, expected rope_type default, lin"
    with pytest.raises(InputError, match=message):
        rope_scaling(attributes(rope_parameters={"rope_type": kind, "factor": 2.0}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"factor": 8.0}, "factor=8.0, an attribute that is unknown"),
        ({"rope_type": "linear"}, "factor=None, expected a number"),
        ({"rope_type": "linear", "factor": 0}, "factor=0, expected a number above"),
        ({"rope_type": "linear", "factor": 2, "beta": 1}, "beta=1, an attribute that"),
        (LLAMA3 | {"high_freq_factor": None}, "high_freq_factor=None, expected a num"),
        (
            LLAMA3 | {"original_max_position_embeddings": 0.5},
            "original_max_position_embeddings=0.5, expected a whole",
        ),
        (LLAMA3 | {"high_freq_factor": 2.0}, "high_freq_factor=2.0, expected more"),
        ("default", "rope_parameters='default', expected a JSON object"),
    ],
)
def test_scaling_refused(values, message):
    with pytest.raises(InputError, match=rf"^f/config\.json: {message}"):
        rope_scaling(attributes(rope_parameters=values))


def test_a_base_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="rope_theta='x', expected a number"):
        rope_base(attributes(rope_parameters={"rope_theta": "x"}))


@pytest.mark.parametrize("scaling", [None, LINEAR, OF_LLAMA3])
def test_what_is_written_is_read(scaling):
    config = dataclasses.replace(TINY, rope_base=7.0, rope_scaling=scaling)
    a = attributes(rope_parameters=rope_attributes(config))
    assert (rope_base(a), rope_scaling(a)) == (7.0, scaling)
