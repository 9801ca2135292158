"""The learning rate against optax's schedule, and values that are refused."""

import dataclasses

import optax
import pytest

from isara_jax.errors import InputError
from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.optimizer.optimizer import learning_rate_at


def rates(config, *, round_index, steps):
    return [
        learning_rate_at(config, round_index=round_index, step=step, steps=steps)
        for step in range(1, steps + 1)
    ]


@pytest.mark.parametrize(("steps", "warmup"), [(12, 1), (100, 3), (1, 1)])
def test_the_rate_is_a_cosine_after_a_warm_up(steps, warmup):
    config = FinetuneConfig(learning_rate=1e-3)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup, steps + 1)
    expected = [float(schedule(step)) for step in range(1, steps + 1)]
    assert rates(config, round_index=1, steps=steps) == pytest.approx(
        expected, abs=1e-9
    )


def test_every_round_halves_the_rate():
    first, second, third = (
        rates(FinetuneConfig(), round_index=round_index, steps=12)
        for round_index in (1, 2, 3)
    )
    assert max(first) == 2e-5
    assert second == pytest.approx([rate / 2 for rate in first])
    assert third == pytest.approx([rate / 4 for rate in first])


def test_no_step_is_wasted():
    assert min(rates(FinetuneConfig(), round_index=1, steps=12)) > 0
    assert min(rates(FinetuneConfig(warmup=0.0), round_index=1, steps=12)) > 0


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("epochs", 0, "at least 1"),
        ("accumulation", 0, "at least 1"),
        ("learning_rate", -1e-5, "above 0"),
        ("clip_norm", float("nan"), "above 0"),
        ("warmup", 1.0, "from 0 to below 1"),
    ],
)
def test_a_value_outside_its_range_is_refused(field, value, rule):
    with pytest.raises(InputError, match=rf"{field}={value!r}: must be {rule}"):
        FinetuneConfig(**{field: value})


def test_every_setting_says_what_it_is():
    assert all(field.metadata["help"] for field in dataclasses.fields(FinetuneConfig))
