"""What is asked of the sides, and what a measurement is worth."""

import pytest

from benchmarks.works import NAMES, Timing, Work, make_work, value_of


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
    work = make_work(name, vocabulary=49_152)
    assert [len(prompt) for prompt in work.prompts] == [length] * rows
    assert list(work.new_tokens) == [new] * rows and work.rows == rows
    assert all(10 <= token < 49_152 for prompt in work.prompts for token in prompt)


def test_only_the_beginning_is_shared():
    work = make_work("shared", vocabulary=49_152)
    assert work.shared == 700
    first, second = work.prompts[:2]
    assert first[:700] == second[:700] and first[700] != second[700]


def test_a_mixed_work():
    work = make_work("mixed", vocabulary=49_152)
    assert len(work.prompts) == len(work.new_tokens) == 64 and work.rows == 16
    assert all(100 <= len(prompt) <= 700 for prompt in work.prompts)
    assert all(8 <= new <= 128 for new in work.new_tokens)
    assert len({len(prompt) for prompt in work.prompts}) > 32


@pytest.mark.parametrize("name", NAMES)
def test_a_work_is_the_same_for_every_side_and_shrinks(name):
    small = make_work(name, vocabulary=97, shrink=32)
    assert small == make_work(name, vocabulary=97, shrink=32)
    assert sum(map(len, small.prompts)) < 200 and min(small.new_tokens) >= 2


TIMING = Timing(seconds=9.0, prefill_seconds=2.0, decode_seconds=4.0, decoded_tokens=20)


@pytest.mark.parametrize(
    ("measure", "value"), [("prefill", 3.5), ("decode", 5.0), ("seconds", 9.0)]
)
def test_a_value_is_of_the_phase_that_is_measured(measure, value):
    work = Work(
        prompts=[[1, 2, 3], [4, 5, 6, 7]], new_tokens=[9, 9], rows=2, measure=measure
    )
    assert value_of(work, TIMING) == value
