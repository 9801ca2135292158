"""Finetuning with its state on the disk: done once, resumed to the same bytes."""

import shutil

import pytest
from finetuning_rig import CONFIG, finetuned, same, stop_at_step
from stored_trees import flip_a_byte
from tiny_llama import tiny_llama

from isara_jax.errors import InputError
from isara_jax.finetuning import planned_steps
from isara_jax.models.model_handle import ModelHandle
from isara_jax.run.workdir import RoundFolder
from isara_jax.runtime.signals import StopRequested


class Loads:
    """A model's loader that counts its calls."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return tiny_llama()


@pytest.fixture
def folder(tmp_path):
    return RoundFolder(tmp_path / "round_01")


def states(folder):
    return sorted(path.name for path in folder.path.glob("train_state_*"))


def test_a_model_is_loaded_when_needed_and_once():
    load = Loads()
    held = ModelHandle(load)
    assert load.count == 0
    assert held() is held()
    assert load.count == 1


def test_a_model_that_was_donated_is_loaded_again():
    load = Loads()
    held = ModelHandle(load)
    first = held.donate()
    assert held() is not first
    held.unload()
    held()
    assert load.count == 3


def test_a_finetuning_changes_the_model_and_keeps_it(folder):
    tuned = finetuned(folder)
    assert not same(tuned(), tiny_llama())
    tuned.unload()
    reloaded = tuned()
    assert same(reloaded, finetuned(folder)())
    steps = folder.metrics.read()
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert states(folder) == []


def test_a_finetuning_that_is_done_is_not_done_again(folder):
    first = finetuned(folder)
    metrics, load = folder.metrics.path.read_bytes(), Loads()
    second = finetuned(folder, start=ModelHandle(load))
    assert same(first(), second())
    assert load.count == 0 and folder.metrics.path.read_bytes() == metrics


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_stopped_finetuning_goes_on_to_the_same_bytes(folder, tmp_path, step):
    alone = RoundFolder(tmp_path / "alone")
    expected = finetuned(alone)
    with pytest.raises(StopRequested):
        finetuned(folder, stops=stop_at_step(step))
    assert states(folder)[-1] == f"train_state_{step:06d}"
    assert not folder.checkpoint.exists()
    load = Loads()
    tuned = finetuned(folder, start=ModelHandle(load))
    assert load.count == 0, "the state has the model"
    assert same(tuned(), expected())
    assert folder.metrics.path.read_bytes() == alone.metrics.path.read_bytes()
    assert states(folder) == []


def test_steps_after_the_last_saved_state_are_taken_again(folder, tmp_path):
    alone = RoundFolder(tmp_path / "alone")
    expected = finetuned(alone)
    with pytest.raises(StopRequested):
        finetuned(folder, stops=stop_at_step(4))
    # As if it had been killed two steps later, in the middle of a line.
    lines = alone.metrics.path.read_bytes().splitlines(keepends=True)
    folder.metrics.path.write_bytes(b"".join(lines[:5]) + lines[5][:9])
    assert same(finetuned(folder)(), expected())
    assert folder.metrics.path.read_bytes() == b"".join(lines)


def test_a_kill_before_the_first_state_starts_over(folder, tmp_path):
    alone = RoundFolder(tmp_path / "alone")
    expected = finetuned(alone)
    folder.metrics.append(alone.metrics.read()[:1])
    assert same(finetuned(folder)(), expected())
    assert folder.metrics.path.read_bytes() == alone.metrics.path.read_bytes()


def test_a_damaged_state_costs_its_steps_only(folder, tmp_path, caplog):
    alone = RoundFolder(tmp_path / "alone")
    expected = finetuned(alone)
    with pytest.raises(StopRequested):
        finetuned(folder, stops=stop_at_step(5))
    flip_a_byte(folder.path / "train_state_000005")
    load = Loads()
    assert same(finetuned(folder, start=ModelHandle(load))(), expected())
    assert load.count == 0, "the state of step 4 has the model"
    assert "train_state_000005: a damaged checkpoint" in caplog.text
    assert folder.metrics.path.read_bytes() == alone.metrics.path.read_bytes()
    assert states(folder) == []


def test_a_damaged_model_is_refused_with_what_to_do_about_it(folder):
    first = finetuned(folder)
    flip_a_byte(folder.checkpoint)
    with pytest.raises(InputError, match=r"checkpoint: a damaged .*: remove it"):
        finetuned(folder)()
    shutil.rmtree(folder.checkpoint)
    assert same(finetuned(folder)(), first())


@pytest.mark.parametrize("ending", ["", ".orbax-checkpoint-tmp", ".damaged"])
def test_states_that_a_kill_left_beside_the_checkpoint_are_removed(folder, ending):
    finetuned(folder)
    left = folder.path / f"train_state_000004{ending}"
    left.mkdir()
    finetuned(folder)
    assert not left.exists()


def test_the_learning_rate_halves_from_round_to_round(folder, tmp_path):
    finetuned(folder)
    second = RoundFolder(tmp_path / "round_02")
    finetuned(second, round_index=2)
    rates = [
        [step["learning_rate"] for step in one.metrics.read()]
        for one in (folder, second)
    ]
    assert max(rates[0]) == 1e-2
    assert rates[1] == pytest.approx([rate / 2 for rate in rates[0]])


@pytest.mark.parametrize(("examples", "steps"), [(1, 2), (2, 2), (3, 4), (5, 6)])
def test_planned_steps(examples, steps):
    assert planned_steps(CONFIG, examples=examples) == steps
