"""A line a finished stage, and a line for what it compiled."""

import jax
import jax.numpy as jnp
import pytest

from isara_jax.run.stages import COMPILING, time_stage
from isara_jax.run.workdir import Workdir


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "runs" / "one")


def finish(workdir, stage, *, items=0):
    with time_stage(workdir, workdir.round(2), stage) as totals:
        totals.items = items


def stages(workdir):
    return [line for line in workdir.stages.read() if line["stage"] != COMPILING]


def test_a_stage_is_a_line_of_its_round(workdir):
    finish(workdir, "questions", items=5)
    (line,) = stages(workdir)
    assert line.pop("seconds") >= 0
    assert line == {"stage": "round_02/questions", "items": 5, "tokens": 0}


def test_a_stage_that_ends_again_is_not_counted_again(workdir):
    finish(workdir, "answers", items=5)
    finish(workdir, "answers", items=7)
    finish(workdir, "questions")
    assert [line["items"] for line in stages(workdir)] == [5, 0]


def test_a_stage_that_stops_leaves_no_line(workdir):
    with (
        pytest.raises(KeyboardInterrupt),
        time_stage(workdir, workdir.round(1), "answers"),
    ):
        raise KeyboardInterrupt
    assert workdir.stages.read() == []


def test_samples_and_their_tokens_are_counted(workdir):
    folder = workdir.round(1)
    folder.answers.append([{"prompt_tokens": 10, "new_tokens": 3} for _ in range(4)])
    with time_stage(workdir, folder, "answers") as totals:
        totals.add_samples(folder.answers)
    assert (totals.items, totals.tokens) == (4, 52)


def test_compiling_is_a_stage_of_its_own(workdir):
    with time_stage(workdir, workdir.round(1), "answers"):
        jax.jit(lambda x: jnp.sin(x) * 1.2345)(jnp.ones(7)).block_until_ready()
    stage, compiling = workdir.stages.read()
    assert compiling["stage"] == COMPILING and compiling["items"] >= 1
    assert stage["stage"] == "round_01/answers"
