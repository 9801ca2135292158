"""The real SmolLM2 on real text, read as transformers on torch reads it."""

import os
import re
from pathlib import Path

import pytest
from pretrained import needs_smollm2
from processes import run_module

DATA = os.environ.get("ISARA_DATA")


@needs_smollm2
@pytest.mark.skipif(
    DATA is None, reason="ISARA_DATA names no folder of benchmark files"
)
@pytest.mark.slow
def test_perplexity_is_that_of_transformers():
    text = Path(DATA).resolve() / "text_corpus/wikitext2_valid.txt"
    done = run_module(
        "benchmarks.perplexity", f"--text={text}", "--tokens=700", "--window=512"
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(
        r"isara_jax ([\d.]+) \(698 tokens, .*\n"
        r"transformers ([\d.]+) \(698 tokens, .*\n"
        r"ratio ([\d.]+)\n",
        done.stdout,
    )
    assert found, done.stdout
    ours, theirs, ratio = map(float, found.groups())
    assert 5 < theirs < 50, "it is a model of this language"
    assert ratio == pytest.approx(ours / theirs, abs=1e-5)
    assert ratio == pytest.approx(1, abs=1e-3)
