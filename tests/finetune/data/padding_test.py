"""Without packing every example has a row, and all steps have one shape."""

import pytest

from isara_jax.finetune.data.padding import (
    LENGTH_MULTIPLE,
    pad_steps,
    padded_shape,
    round_up,
)
from isara_jax.finetune.data.training_example import TrainingExample


def example(prompt, answer):
    return TrainingExample(
        id="a", prompt_tokens=(1,) * prompt, answer_tokens=(2,) * answer
    )


@pytest.mark.parametrize(("length", "rounded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_rounded_up(length, rounded):
    assert round_up(length, multiple=8) == rounded


def test_the_shape_holds_the_longest_example_and_the_longest_answer():
    shape = padded_shape([example(40, 2), example(3, 20)], rows=2, micro_batches=3)
    assert (shape.rows, shape.micro_batches, shape.groups) == (2, 3, 2)
    # 42 tokens, of which the last is only predicted.
    assert (shape.length, shape.answer_length) == (48, 32)
    assert shape.length % LENGTH_MULTIPLE == 0


def test_every_example_has_a_row_of_its_own():
    steps = [(example(3, 2), example(4, 2)), (example(50, 2),)]
    plan = pad_steps(steps, rows=2, micro_batches=1)
    assert [[len(row) for row in step] for step in plan.steps] == [[1, 1], [1]]
    assert plan.shape == padded_shape(
        [e for s in steps for e in s], rows=2, micro_batches=1
    )
