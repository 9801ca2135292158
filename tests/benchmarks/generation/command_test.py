"""The command itself: what it prints, and which flags it refuses."""

import re

import pytest
from processes import QUICKLY_COMPILED, run_module
from tiny_run import write_tiny_run

SURROUNDINGS = r"commit .*, \d+ cores of .*, Python 3\.\d+\.\d+, jax .*"
SIDE = r"[\d.]+ (?:tok/s|s)"
SHARE = r", \d+% of the (?:prefill|decode) bound"
PEER = rf"; transformers {SIDE}, ratio [\d.]+"

QUICKLY = ("--repeats=1", "--shrink=32")


def measured(*flags):
    """Returns the lines that the command prints, after where they were measured."""
    done = run_module(
        "benchmarks.generation", *QUICKLY, *flags, XLA_FLAGS="", **QUICKLY_COMPILED
    )
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert re.fullmatch(SURROUNDINGS, first), first
    return lines


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_tiny_run(tmp_path_factory.mktemp("tiny"))


def test_a_model_alone(run):
    (line,) = measured(f"--model={run.model}", "--work=decode1", "--peers=")
    assert re.fullmatch(rf"decode1: isara_jax {SIDE}{SHARE}", line), line


@pytest.mark.slow
def test_random_weights_are_measured_on_both_sides():
    lines = measured("--shape=tiny")
    for name, line in zip(("decode64", "prefill"), lines, strict=True):
        assert re.fullmatch(rf"{name}: isara_jax {SIDE}{SHARE}{PEER}", line), line


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--work=decode2",), "--work=decode2: value should be one of <decode|decode1"),
        (
            ("--peers=vllm",),
            "flag --peers=['vllm']: must be of transformers, llama_cpp",
        ),
        (("--shape=tiny", "--work=drafting"), "drafting needs a tokenizer"),
    ],
)
def test_a_wrong_flag_is_named(flags, sentence):
    done = run_module("benchmarks.generation", *flags)
    assert done.returncode != 0 and done.stdout == ""
    assert sentence in done.stderr, done.stderr
