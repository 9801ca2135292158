"""The spike guard: what a spike is, and what becomes of a step with one."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import tiny_llama
from training import CONFIG, trained_on

from isara_jax.finetune.data.packing import balanced_steps
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.optimizer.spikes import (
    MIN_LOSSES,
    WINDOW,
    empty_history,
    is_spike,
    update_history,
)
from isara_jax.finetune.trainer import TrainingHooks
from isara_jax.models.checkpoints.load import named_tensors


def after(losses, *, factor=2.0):
    """Returns what is known after the losses, and which of them were spikes."""
    history, spikes = empty_history(), []
    for loss in map(jnp.float32, losses):
        spike = is_spike(history, loss, factor=factor)
        history = update_history(history, loss, spike=spike)
        spikes.append(bool(spike))
    return history, spikes


def test_a_spike_is_above_so_many_times_the_median():
    _, spikes = after([1.0, 9.0, 1.1, 0.9, 1.9, 2.5, 1.0])
    assert spikes == [False] * 5 + [True, False]


def test_nothing_is_told_of_the_first_steps():
    _, spikes = after([1.0] * (MIN_LOSSES - 1) + [100.0])
    assert not any(spikes)


def test_the_median_is_that_of_the_last_steps_taken():
    history, spikes = after([5.0] * 4 + [1.0] * WINDOW + [3.0, 3.0, 1.0])
    assert spikes[-3:] == [True, True, False]
    assert history.losses.tolist() == [1.0] * WINDOW
    assert int(history.consecutive_spikes) == 0


GUARDED = dataclasses.replace(
    CONFIG,
    train_batch=2,
    epochs=2,
    clip_norm=1.0,
    spike_factor=1.3,
    train_row_length=32,
)


def plain(number):
    return TrainingExample(
        id=f"r01-{number:04d}",
        prompt_tokens=(5, 6, 7),
        answer_tokens=(20, 21, 22, 23, 2),
    )


def train(data, *, hooks=None, **changes):
    config = dataclasses.replace(GUARDED, **changes)
    return trained_on(data, tiny_llama(), config=config, hooks=hooks)


def with_bad_step(number, *, count=12, bad=1):
    """Returns examples of which those of some consecutive steps cannot be foreseen."""
    data = [plain(at) for at in range(2 * count)]
    steps = list(
        balanced_steps(data, examples_per_step=2, epochs=1, round_index=1, seed=1)
    )
    chosen = {one.id for step in steps[number - 1 :][:bad] for one in step}
    random = np.random.default_rng(0)
    return [
        dataclasses.replace(
            one, answer_tokens=tuple(random.integers(30, 97, 5).tolist())
        )
        if one.id in chosen
        else one
        for one in data
    ], chosen


def test_a_step_with_a_spike_is_not_taken(caplog):
    data, chosen = with_bad_step(9)
    with caplog.at_level(logging.WARNING):
        _, metrics = train(data, learning_rate=1e-2, epochs=1)
    assert [step.spikes for step in metrics] == [0] * 8 + [1] + [0] * 3
    assert metrics[8].update_ratio == 0 < metrics[9].update_ratio
    assert "a spike, not trained on" in caplog.text
    assert all(id in caplog.text for id in chosen)
    _, unguarded = train(data, learning_rate=1e-2, epochs=1, spike_factor=0)
    assert [m.loss for m in unguarded[:9]] == pytest.approx(
        [m.loss for m in metrics[:9]], rel=1e-5
    )
    assert unguarded[8].update_ratio > 0


def test_a_spike_leaves_the_parameters():
    data, _ = with_bad_step(5, count=5)
    skipped, metrics = train(data, learning_rate=1e-2, epochs=1)
    assert metrics[-1].spikes == 1
    states = []
    hooks = TrainingHooks(
        should_save=lambda step: step % 4 == 0,
        save_state=lambda s: states.append(jax.tree.map(np.array, s)),
    )
    train(data, learning_rate=1e-2, epochs=1, hooks=hooks)
    before = dict(named_tensors(states[0].model))
    for name, value in named_tensors(skipped):
        np.testing.assert_array_equal(value, before[name])


def test_the_third_spike_in_a_row_ends_it():
    data, chosen = with_bad_step(9, bad=3)
    with pytest.raises(
        FloatingPointError, match=r"spike 3 in a row.*step 11"
    ) as caught:
        train(data, learning_rate=1e-2, epochs=1)
    assert sum(id in str(caught.value) for id in chosen) == 2


def test_steps_say_of_spikes_only_where_there_are_any():
    _, metrics = train([plain(n) for n in range(4)], epochs=1)
    assert all("spikes" not in step.record() for step in metrics)
    assert dataclasses.replace(metrics[0], spikes=1).record()["spikes"] == 1
