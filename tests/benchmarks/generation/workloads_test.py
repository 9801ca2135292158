"""What is asked of the sides, and what a measurement is worth."""

import pytest

from benchmarks.generation.workloads import (
    NAMES,
    Timing,
    Workload,
    make_workload,
    value_of,
)


@pytest.mark.parametrize(
    ("name", "rows", "length", "new"),
    [
        ("decode", 32, 512, 64),
        ("decode1", 1, 512, 64),
        ("decode64", 64, 992, 64),
        ("prefill", 8, 512, 2),
        ("shared", 32, 760, 64),
    ],
)
def test_an_even_work(name, rows, length, new):
    workload = make_workload(name, vocabulary=49_152)
    assert [len(prompt) for prompt in workload.prompts] == [length] * rows
    assert list(workload.new_tokens) == [new] * rows and workload.rows == rows
    assert all(10 <= token < 49_152 for prompt in workload.prompts for token in prompt)


def test_only_the_beginning_is_shared():
    workload = make_workload("shared", vocabulary=49_152)
    assert workload.shared == 700
    first, second = workload.prompts[:2]
    assert first[:700] == second[:700] and first[700] != second[700]


def test_a_mixed_work():
    workload = make_workload("mixed", vocabulary=49_152)
    assert (
        len(workload.prompts) == len(workload.new_tokens) == 64 and workload.rows == 16
    )
    assert all(100 <= len(prompt) <= 700 for prompt in workload.prompts)
    assert all(8 <= new <= 128 for new in workload.new_tokens)
    assert len({len(prompt) for prompt in workload.prompts}) > 32


@pytest.mark.parametrize("name", NAMES)
def test_a_work_is_the_same_for_every_side_and_shrinks(name):
    small = make_workload(name, vocabulary=97, shrink=32)
    assert small == make_workload(name, vocabulary=97, shrink=32)
    assert sum(map(len, small.prompts)) < 200 and min(small.new_tokens) >= 2


TIMING = Timing(seconds=9.0, prefill_seconds=2.0, decode_seconds=4.0, decoded_tokens=20)


@pytest.mark.parametrize(
    ("measure", "value"), [("prefill", 3.5), ("decode", 5.0), ("seconds", 9.0)]
)
def test_a_value_is_of_the_phase_that_is_measured(measure, value):
    workload = Workload(
        prompts=[[1, 2, 3], [4, 5, 6, 7]], new_tokens=[9, 9], rows=2, measure=measure
    )
    assert value_of(workload, TIMING) == value
