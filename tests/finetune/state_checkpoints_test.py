"""Training states on the disk: when, how many, and what is gone on from."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored_trees import DAMAGE, assert_same, flip_a_byte, hold_writes, run

from isara_jax.errors import EnvironmentFailure
from isara_jax.finetune import state_checkpoints
from isara_jax.finetune.state import TrainState
from isara_jax.finetune.state_checkpoints import CheckpointConfig, StateCheckpoints
from isara_jax.runtime.signals import StopRequested


def state(step):
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        model={"norm": jax.random.normal(jax.random.key(step), (5000,))},
        optimizer=(jnp.full(3, step, jnp.float32),),
    )


def states(folder, **changes):
    return StateCheckpoints(folder, config=CheckpointConfig(**changes))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def saved(tmp_path):
    """Holds the states after the steps 3 and 5."""
    with states(tmp_path) as some:
        for step in (3, 5):
            some.save(state(step))
    return tmp_path


def test_the_newest_state_comes_back(saved):
    assert_same(states(saved).restore_latest(state(0)), state(5))
    assert states(saved / "nothing").restore_latest(state(0)) is None


@pytest.mark.parametrize(("keep", "left"), [(1, "7"), (2, "67"), (3, "567")])
def test_the_newest_states_are_kept(tmp_path, keep, left):
    with states(tmp_path, train_keep_states=keep) as some:
        for step in range(1, 8):
            some.save(state(step))
            whole = [f"train_state_{n:06d}" for n in range(max(1, step - keep), step)]
            assert set(names(tmp_path)) >= set(whole)
    assert names(tmp_path) == [f"train_state_00000{step}" for step in left]


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"train_save_minutes": 0}, []),
        ({"train_save_minutes": 0, "train_save_steps": 3}, [3, 6, 9]),
        ({"train_save_minutes": 1}, [4, 8]),
        ({"train_save_minutes": 1, "train_save_steps": 3}, [3, 6, 9]),
        ({"train_save_minutes": 0.5, "train_save_steps": 5}, [2, 4, 5, 7, 9, 10]),
    ],
)
def test_a_state_is_due_by_steps_and_by_time(tmp_path, monkeypatch, changes, due):
    clock = itertools.count(0, 15)  # seconds, and as many a step
    now = next(clock)
    monkeypatch.setattr(state_checkpoints.time, "monotonic", lambda: now)
    some, found = states(tmp_path, **changes), []
    monkeypatch.setattr(some, "_writer", Noted())
    for step in range(1, 11):
        now = next(clock)
        if some.should_save(step):
            some.save(state(step))
            found.append(step)
    assert found == due


class Noted:
    def save(self, path, tree):
        self.path = path

    def wait(self):
        pass


@pytest.mark.parametrize("damage", [*DAMAGE, "a byte changed", "emptied"])
def test_a_damaged_state_is_set_aside_for_the_one_before(saved, caplog, damage):
    newest = saved / "train_state_000005"
    kinds = DAMAGE | {"a byte changed": flip_a_byte, "emptied": empty}
    kinds[damage](newest)
    assert_same(states(saved).restore_latest(state(0)), state(3))
    (warning,) = caplog.messages
    assert f"{newest}: " in warning and "checkpoint" in warning
    assert "it is now train_state_000005.damaged" in warning
    assert names(saved) == ["train_state_000003", "train_state_000005.damaged"]
    with states(saved) as some:
        some.save(state(5))
    assert_same(states(saved).restore_latest(state(0)), state(5))


def empty(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def test_another_tree_s_state_is_set_aside(saved, caplog):
    other = dataclasses.replace(state(0), loss_history=jnp.zeros(2))
    assert states(saved).restore_latest(other) is None
    assert len(caplog.messages) == 2
    assert "another tree's checkpoint; it lacks 'loss_history'" in caplog.text


def test_a_state_that_is_damaged_twice_is_set_aside_twice(saved):
    for _ in range(2):
        flip_a_byte(saved / "train_state_000005")
        assert_same(states(saved).restore_latest(state(0)), state(3))
        with states(saved) as some:
            some.save(state(5))
    assert len(names(saved)) == 3


def test_a_save_that_is_killed_leaves_the_one_before(tmp_path):
    killed = run(
        "import os, pathlib, signal, sys, threading, jax, jax.numpy as jnp\n"
        "from isara_jax.finetune import CheckpointConfig, StateCheckpoints\n"
        "from isara_jax.finetune.state import TrainState\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "some = StateCheckpoints(folder, config=CheckpointConfig())\n"
        "for step in (3, 5):\n"
        "    model = {'norm': jnp.full(10_000_000, step)}\n"
        "    some.save(TrainState(step=jnp.int32(step), model=model, optimizer=()))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
    )
    assert killed.returncode == -9, killed.stderr
    first, left = names(tmp_path)
    assert first == "train_state_000003"
    assert left.startswith("train_state_000005.orbax-checkpoint-tmp")
    target = TrainState(
        step=jnp.int32(0), model={"norm": jnp.zeros(10_000_000, int)}, optimizer=()
    )
    restored = states(tmp_path).restore_latest(target)
    assert int(restored.step) == 3
    assert np.unique(restored.model["norm"]).tolist() == [3]
    assert names(tmp_path) == [first]


def test_what_is_done_leaves_nothing(saved):
    flip_a_byte(saved / "train_state_000005")
    states(saved).restore_latest(state(0))
    (saved / "train_state_000007.orbax-checkpoint-tmp").mkdir()
    (saved / "metrics.jsonl").touch()
    states(saved).delete_all()
    assert names(saved) == ["metrics.jsonl"]


@pytest.mark.parametrize("error", [None, StopRequested, FloatingPointError])
def test_a_stop_says_that_all_is_kept_only_where_it_is(tmp_path, monkeypatch, error):
    go_on, folder = hold_writes(monkeypatch), tmp_path / "round_01"
    said = (FloatingPointError, "step 5")
    if error is not FloatingPointError:
        said = (EnvironmentFailure, "train_state_000005: cannot be written .*: put")
    with pytest.raises(said[0], match=said[1]):
        stop_while_the_disk_goes(folder, go_on, error)


def stop_while_the_disk_goes(folder, go_on, error):
    with states(folder) as some:
        some.save(state(5))
        folder.rename(folder.with_name("elsewhere"))
        folder.write_text("no folder any more")
        go_on.set()
        if error:
            raise error("step 5")
