"""Stopping early: what is held out, when it ends, and which model is kept."""

import dataclasses
from itertools import pairwise

import jax
import numpy as np
import pytest
from tiny_llama import tiny_llama
from training import trained_on

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.batch_plan import (
    plan_batches,
    split_validation,
    steps_per_epoch,
    validation_count,
)
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.state import abstract_state
from isara_jax.finetune.trainer import TrainingHooks
from isara_jax.finetune.validation import mean_loss
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.signals import StopRequested

CONFIG = FinetuneConfig(
    learning_rate=2e-2,
    train_batch=4,
    accumulation=1,
    epochs=12,
    remat="none",
    early_stop_epochs=2,
    validation_share=0.25,
)
MESH = make_mesh(data=1, model=1)


def examples():
    random = np.random.default_rng(3)
    return [
        TrainingExample(
            id=f"r01-{number:04d}",
            prompt_tokens=tuple(random.integers(3, 97, 8).tolist()),
            answer_tokens=(*random.integers(3, 97, 4).tolist(), 2),
        )
        for number in range(16)
    ]


def train(*, hooks=None, restored=None, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return trained_on(
        examples(), tiny_llama(), config=config, hooks=hooks, restored=restored
    )


@pytest.fixture(scope="module")
def stopped():
    return train()


def test_it_stops_when_the_held_out_loss_has_not_fallen(stopped):
    _, metrics = stopped
    losses = [m.validation_loss for m in metrics if m.validation_loss is not None]
    # Texts without a rule: what is learned by heart does not help with others.
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < CONFIG.epochs
    assert len(metrics) == 3 * len(losses)
    assert all(m.validation_loss is None for m in metrics if m.step % 3)
    assert "validation_loss" not in metrics[0].record()
    assert metrics[2].record()["validation_loss"] == losses[0]


def test_the_best_epoch_s_model_is_kept(stopped):
    model, metrics = stopped
    _, held_out = split_validation(examples(), config=CONFIG, round_index=1, seed=1)
    plan = plan_batches(
        held_out, config=CONFIG, epochs=1, round_index=1, seed=1, mesh=MESH
    )
    losses = [m.validation_loss for m in metrics if m.validation_loss is not None]
    kept = mean_loss(model, plan, config=CONFIG, mesh=MESH)
    assert kept == pytest.approx(min(losses), rel=1e-6)
    assert kept < losses[-1]


def test_a_stopped_one_goes_on_to_the_same_bits(stopped):
    model, metrics = stopped
    saved, done = [], len(metrics) - 2
    calls = iter(range(1, 100))

    def stop():
        return next(calls) == done

    with pytest.raises(StopRequested):
        train(
            hooks=TrainingHooks(
                save_state=lambda s: saved.append(copy(s)), should_stop=stop
            )
        )
    target = abstract_state(tiny_llama(), config=CONFIG, mesh=MESH)
    assert jax.tree.structure(target) == jax.tree.structure(saved[0])
    state = jax.tree.map(
        lambda value, into: jax.device_put(value, into.sharding), saved[0], target
    )
    resumed, rest = train(restored=state)
    assert rest == metrics[done:]
    for one, other in zip(
        jax.tree.leaves(resumed), jax.tree.leaves(model), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def copy(state):
    return jax.tree.map(np.array, state)


def test_what_is_held_out_is_drawn_once_a_round():
    def drawn(**changes):
        given = {"config": CONFIG, "round_index": 1, "seed": 1} | changes
        trained, held_out = split_validation(examples(), **given)
        assert sorted(one.id for one in [*trained, *held_out]) == [
            one.id for one in examples()
        ]
        return [one.id for one in held_out]

    assert len(drawn()) == 4
    assert drawn() == drawn() != drawn(round_index=2)
    assert drawn(config=dataclasses.replace(CONFIG, early_stop_epochs=0)) == []


@pytest.mark.parametrize(
    ("given", "share", "count"), [(1, 0.5, 0), (2, 0.1, 1), (9, 0.25, 2), (3, 0.9, 2)]
)
def test_one_at_least_is_held_out_and_one_is_left(given, share, count):
    config = dataclasses.replace(CONFIG, validation_share=share)
    assert validation_count(given, config=config) == count


def test_an_epoch_s_steps_are_of_what_is_trained_on():
    counts = [steps_per_epoch(count, config=CONFIG) for count in (4, 5, 6, 7, 12)]
    assert counts == [1, 1, 2, 2, 3]
    assert all(one <= other for one, other in pairwise(counts))
