"""The last texts in fewer rows: the same to the bit."""

import dataclasses
import functools

from completions import SAMPLED, complete, random_prompts
from tiny_llama import tiny_llama

from isara_jax.engine import narrowing
from isara_jax.engine.figures import Figures


def test_the_last_texts_are_written_to_the_bit_in_fewer_rows(monkeypatch):
    prompts = [
        dataclasses.replace(
            prompt, new_tokens=20 if number % 9 == 0 else number % 7 + 1
        )
        for number, prompt in enumerate(random_prompts(*range(5, 55)))
    ]
    run = functools.partial(complete, tiny_llama(), prompts, decoding=SAMPLED)
    figures = Figures()
    found = run(slots=32, figures=figures)
    monkeypatch.setattr(narrowing, "LEAST_NARROW", 100)
    wide = Figures()
    assert run(slots=32, figures=wide) == found
    assert figures.slot_steps < wide.slot_steps
