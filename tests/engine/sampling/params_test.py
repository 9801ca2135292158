"""What sampling parameters may be, and which of them are compiled in."""

import dataclasses

import jax
import numpy as np
import pytest
from rule_cases import sampling_params

from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.errors import InputError


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("max_new_tokens", 0, ">= 1"),
        ("temperature", -0.1, ">= 0"),
        ("temperature", float("nan"), ">= 0"),
        ("top_k", -1, ">= 0"),
        ("top_p", 0.0, r"in \(0, 1\]"),
        ("top_p", 1.01, r"in \(0, 1\]"),
        ("repetition_penalty", 0.0, "> 0"),
        ("no_repeat_ngram", -1, ">= 0"),
        ("min_p", -0.1, r"in \[0, 1\]"),
        ("min_p", 1.1, r"in \[0, 1\]"),
        ("min_new_tokens", -1, "from 0 to `max_new_tokens`=1"),
        ("min_new_tokens", 2, "from 0 to `max_new_tokens`=1"),
        ("length_decay_start", -1, ">= 0"),
        ("length_decay_start", 5, "0 where `length_decay_factor` is 1"),
        ("length_decay_factor", 0.0, "> 0, finite"),
        ("length_decay_factor", float("inf"), "> 0, finite"),
        ("beams", 0, ">= 1"),
        ("length_penalty", float("nan"), "finite"),
        ("length_penalty", 2.0, "1 where there are no beams"),
    ],
)
def test_a_bad_value_is_named(field, value, rule):
    with pytest.raises(InputError, match=rf"^{field}={value}: must be {rule}$"):
        SamplingParams(**{"max_new_tokens": 1, field: value})


def test_strengths_do_not_change_what_is_compiled():
    traced = {
        "temperature": 0.7,
        "top_p": 0.6,
        "min_p": 0.2,
        "repetition_penalty": 1.3,
        "min_new_tokens": 4,
        "length_decay_start": 6,
        "length_decay_factor": 1.2,
        "length_penalty": 3.0,
    }
    rules = sampling_params(**traced, beams=2)
    changed = [
        dataclasses.replace(rules, **{field: type(value)(value * 0.9)})
        for field, value in traced.items()
    ]
    assert {other.static for other in changed} == {rules.static}
    leaves = [jax.tree.leaves(other.traced) for other in [rules, *changed]]
    assert len(np.unique(leaves, axis=0)) == 1 + len(traced)
