"""Sections that a tool asks for: flags, values, and what a wrong one says."""

import dataclasses

import pytest
from absl import flags
from processes import run_module

from isara_jax.cli.flags import (
    Section,
    define_sections,
    result_values,
    section_flags,
    sections_from_flags,
    user_sentence,
)
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.errors import FieldError, InputError
from isara_jax.runtime.config import RuntimeConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    stop: tuple[str, ...] = dataclasses.field(default=(), metadata={"help": "ends"})
    output: str = dataclasses.field(
        default="", metadata={"help": "where", "operational": True}
    )


SECTIONS = {
    "job": Section(kind=Job, defaults={"output": "here"}),
    "decoding": Section(kind=SamplingParams, defaults={"max_new_tokens": 5}),
    "second": Section(
        kind=SamplingParams, prefix="second_", defaults={"max_new_tokens": 6}
    ),
    "engine": Section(kind=RuntimeConfig),
}


def parsed(*arguments, sections=SECTIONS):
    values = flags.FlagValues()
    define_sections(sections, values)
    values(["tool", *arguments])
    return values


def test_sections_come_back_under_their_names():
    built = sections_from_flags(SECTIONS, parsed("--top_k=3", "--second_top_k=4"))
    assert list(built) == list(SECTIONS)
    assert built["job"] == Job(output="here")
    assert built["decoding"] == SamplingParams(max_new_tokens=5, top_k=3)
    assert built["second"] == SamplingParams(max_new_tokens=6, top_k=4)
    assert built["engine"] == RuntimeConfig()


def test_a_flag_that_is_repeated_is_a_tuple_in_its_order():
    built = sections_from_flags(SECTIONS, parsed("--stop=b", "--stop=a, c"))
    assert built["job"].stop == ("b", "a, c")


def test_operational_flags_are_no_results():
    values = parsed("--stop=b", "--output=there", "--mesh_model=2")
    found = result_values(SECTIONS, values)
    assert found["stop"] == ["b"] and found["second_max_new_tokens"] == 6
    operational = section_flags(SECTIONS, operational=True)
    assert operational == ["output", "mesh_data", "mesh_model", "compilation_cache"]
    assert not set(found) & set(operational)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--top_p=2", "--top_p=2.0: must be in (0, 1]"),
        ("--second_top_p=2", "--second_top_p=2.0: must be in (0, 1]"),
        ("--seed=-1", "--seed=-1: must be from 0 to 2^32 - 1"),
        (
            "--second_min_new_tokens=7",
            "--second_min_new_tokens=7: must be from 0 to --second_max_new_tokens=6",
        ),
    ],
)
def test_a_wrong_value_is_named_by_its_flag(argument, message):
    with pytest.raises(InputError) as caught:
        sections_from_flags(SECTIONS, parsed(argument))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            FieldError("mesh_data", 3, "must suit `mesh_model`=2"),
            "--mesh_data=3: must suit --mesh_model=2",
        ),
        (FieldError("output", "", "must be given"), "--output: must be given"),
        (FieldError("beams", 2, "or `width`"), "--beams=2: or width"),
        (FieldError("width", 2, "is `odd`"), "width=2: is odd"),
        (InputError("line 3: `seed` is odd"), "line 3: `seed` is odd"),
    ],
    ids=str,
)
def test_an_error_s_fields_become_the_command_s_flags(error, sentence):
    assert user_sentence(error, parsed()) == sentence


def test_help_names_other_fields_by_their_flags():
    values = parsed()
    assert "all that --mesh_model leaves" in values["mesh_data"].help


def test_a_section_may_declare_fields_operational():
    sections = {
        "decoding": Section(
            kind=SamplingParams,
            prefix="x_",
            defaults={"max_new_tokens": 5},
            operational=("top_k",),
        )
    }
    assert section_flags(sections, operational=True) == ["x_top_k"]
    assert "x_top_k" not in result_values(sections, parsed(sections=sections))


def test_a_field_without_a_default_is_our_mistake():
    bare = {"decoding": Section(kind=SamplingParams, prefix="x_", defaults={})}
    with pytest.raises(ValueError, match="the field x_max_new_tokens has no default"):
        parsed(sections=bare)


def test_help_shows_the_flags_of_a_command_s_sections():
    shown = run_module("isara_jax.tools.generate", "--help").stdout
    for name in ("input", "top_k", "seed"):
        assert f"\n  --{name}: " in shown
