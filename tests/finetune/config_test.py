"""A setting of finetuning that breaks its rule is named with it."""

import pytest

from isara_jax.errors import InputError
from isara_jax.finetune.config import FinetuneConfig


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("epochs", 0, "at least 1"),
        ("train_batch", 0, "at least 1"),
        ("accumulation", 0, "at least 1"),
        ("max_length", 0, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("inf"), "above 0"),
        ("learning_rate_decay", float("nan"), "above 0"),
        ("clip_norm", -1.0, "above 0"),
        ("weight_decay", -0.1, "0 or more"),
        ("train_row_length", -1, "0 or more"),
        ("early_stop_epochs", -1, "0 or more"),
        ("warmup", 1.0, "from 0 to below 1"),
        ("adam_b2", 1.0, "from 0 to below 1"),
        ("validation_share", 0.0, "between 0 and 1"),
        ("validation_share", 1.0, "between 0 and 1"),
        ("spike_factor", 1.0, "0 or above 1"),
    ],
)
def test_a_bad_value_is_named(field, value, rule):
    with pytest.raises(InputError, match=rf"{field}={value}: must be {rule}$"):
        FinetuneConfig(**{field: value})


@pytest.mark.parametrize(
    "fields",
    [{}, {"warmup": 0.0}, {"weight_decay": 0.0, "adam_b1": 0.0}, {"spike_factor": 2.0}],
)
def test_the_ends_of_the_ranges_are_let_pass(fields):
    config = FinetuneConfig(**fields)
    assert {name: getattr(config, name) for name in fields} == fields
