"""A quick look at every work on the real SmolLM2: both sides write and are compared."""

import re
import subprocess
import sys

import pytest
from pretrained import needs_smollm2
from python_source import ROOT

SIDE = r"[\d.]+ (?:tok/s|s)"
PEER = rf"; transformers(?: with the prefix by hand)? {SIDE}, ratio [\d.]+"


@needs_smollm2
@pytest.mark.slow
def test_every_work_is_measured_against_transformers():
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks.generation", "--shrink=32", "--repeats=1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = ["decode", "decode1", "prefill", "shared", "mixed"]
    for name, line in zip(names, lines, strict=True):
        peers = 2 if name == "shared" else 1
        assert re.fullmatch(rf"{name}: isara_jax {SIDE}({PEER}){{{peers}}}", line), line


@needs_smollm2
@pytest.mark.slow
def test_an_unknown_work_is_named():
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks.generation", "--work=decode2"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "--work=decode2: value should be one of <decode|decode1" in done.stderr
