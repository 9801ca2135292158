"""How many steps a finetuning takes, on which rows, and what it holds out."""

import numpy as np
import pytest

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.batch_plan import (
    CPU_MULTIPLE,
    plan_batches,
    split_validation,
    steps_per_epoch,
    validation_count,
)
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.runtime.mesh import make_mesh

STOPPING = FinetuneConfig(early_stop_epochs=2, validation_share=0.25)


def examples(count):
    lengths = np.random.default_rng(0).integers(2, 40, count)
    return [
        TrainingExample(id=str(n), prompt_tokens=(1,), answer_tokens=(2,) * int(length))
        for n, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(
    ("count", "config", "steps"),
    [
        (32, FinetuneConfig(), 1),
        (33, FinetuneConfig(), 2),
        (12, FinetuneConfig(train_batch=2, accumulation=3), 2),
        (12, FinetuneConfig(train_batch=4, accumulation=1, early_stop_epochs=1), 3),
        (16, FinetuneConfig(train_batch=4, accumulation=1, early_stop_epochs=1), 4),
    ],
)
def test_steps_of_an_epoch(count, config, steps):
    assert steps_per_epoch(count, config=config) == steps


@pytest.mark.parametrize(
    ("count", "held_out"), [(1, 0), (2, 1), (3, 1), (8, 2), (100, 25)]
)
def test_a_share_is_held_out_but_never_everything(count, held_out):
    assert validation_count(count, config=STOPPING) == held_out
    assert validation_count(count, config=FinetuneConfig()) == 0


def test_what_is_held_out_is_not_trained_and_depends_on_seed_and_round():
    given = examples(40)
    drawn = {
        (seed, t): split_validation(given, config=STOPPING, round_index=t, seed=seed)
        for seed, t in [(1, 1), (1, 2), (2, 1)]
    }
    for trained, held_out in drawn.values():
        assert len(held_out) == 10
        assert sorted([*trained, *held_out], key=lambda e: int(e.id)) == given
    assert len({tuple(e.id for e in held) for _, held in drawn.values()}) == 3
    assert split_validation(given, config=FinetuneConfig(), round_index=1, seed=1) == (
        given,
        (),
    )


@pytest.mark.parametrize("packing", ["on", "off"])
def test_every_step_has_its_examples_in_rows_of_one_shape(packing):
    config = FinetuneConfig(train_batch=4, accumulation=2, train_packing=packing)
    given = examples(20)
    plan = plan_batches(
        given,
        config=config,
        epochs=2,
        round_index=1,
        seed=1,
        mesh=make_mesh(data=1, model=1),
    )
    counts = [sum(map(len, step)) for step in plan.steps]
    assert counts == [8, 8, 4] * 2
    trained = sorted(int(e.id) for step in plan.steps for row in step for e in row)
    assert trained == sorted([*range(20)] * 2)
    assert plan.shape.micro_batches == 2
    if packing == "on":
        assert plan.shape.length % CPU_MULTIPLE == 0
    else:
        assert plan.shape.rows == 4
