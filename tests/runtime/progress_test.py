"""Sparse lines where nobody watches, a bar on a terminal, and what they count."""

import contextlib
import importlib
import os

import pytest

from isara_jax.runtime.progress import format_duration, progress

# The door's `progress` is the function.
module = importlib.import_module("isara_jax.runtime.progress")


@pytest.fixture
def log(tmp_path):
    with open(tmp_path / "log", "w+", encoding="utf-8") as file:
        yield file


def lines(log):
    log.seek(0)
    return log.read().splitlines()


@pytest.fixture
def clock_hand(monkeypatch):
    """A format_duration that the test turns: `clock_hand[0]` is its time in seconds."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_sparse_and_tell_rate_and_time_left(log, clock_hand):
    with progress("answers", total=100, done=20, unit="samples", out=log) as advance:
        for count, seconds in ((4, 10.0), (4, 10.0), (4, 1.0), (68, 19.0)):
            clock_hand[0] += seconds
            advance(count)
    assert lines(log) == [
        "answers: 20 of 100 samples",
        "answers: 28 of 100 samples, 0.40 a second, 3:00 left",
        "answers: 100 of 100 samples in 0:40, 2.00 a second",
    ]


def test_no_advance_is_no_division_by_zero(log, clock_hand):
    with progress("answers", total=2, done=0, unit="samples", out=log) as advance:
        clock_hand[0] += 20
        advance(0)
    assert lines(log)[1:] == [
        "answers: 0 of 2 samples, 0.00 a second, ? left",
        "answers: 0 of 2 samples in 0:20, 0.00 a second",
    ]


def test_a_stage_that_is_stopped_does_not_say_that_it_ended(log):
    with (
        pytest.raises(RuntimeError),
        progress("answers", total=2, done=0, unit="samples", out=log),
    ):
        raise RuntimeError
    assert lines(log) == ["answers: 0 of 2 samples"]


def shown_on(screen):
    """Reads what a terminal shows whose writer is gone, which then is an error."""
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(screen, 10_000):
            shown += part
    os.close(screen)
    return shown.decode()


def test_a_terminal_gets_a_bar_that_starts_where_the_run_was():
    screen, terminal = os.openpty()
    with (
        open(terminal, "w", encoding="utf-8") as out,
        progress("answers", total=10, done=4, unit="samples", out=out) as advance,
    ):
        advance(6)
    first, *_, last = [part for part in shown_on(screen).split("\r") if part.strip()]
    assert "answers:  40%" in first and "4/10" in first
    assert "answers: 100%" in last and "10/10" in last


def test_say_writes_a_line_at_once(log):
    module.log("round 1: kept 3 of 8", log)
    assert lines(log) == ["round 1: kept 3 of 8"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (3599, "59:59"),
        (3723, "1:02:03"),
        (float("inf"), "?"),
    ],
)
def test_clock(seconds, text):
    assert format_duration(seconds) == text
