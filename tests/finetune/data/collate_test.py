"""The arrays of a step: what is trained on, in which order, and what is left out."""

import numpy as np
import pytest
from training import collate_padded

from isara_jax.errors import InputError
from isara_jax.finetune.data.padding import padded_shape, shuffled_steps
from isara_jax.finetune.data.training_example import TrainingExample, drop_too_long


def example(number, *, prompt=3, answer=2):
    return TrainingExample(
        id=f"r01-{number:04d}",
        prompt_tokens=tuple(range(10, 10 + prompt)),
        answer_tokens=tuple(range(50, 50 + answer)),
    )


def order(*, seed=1, round_index=1, epochs=1, count=10):
    examples = [example(number) for number in range(count)]
    steps = shuffled_steps(
        examples, examples_per_step=4, epochs=epochs, round_index=round_index, seed=seed
    )
    return [[chosen.id for chosen in step] for step in steps]


def test_a_row_predicts_every_answer_token_and_nothing_else():
    one = example(0, prompt=5, answer=4)
    shape = padded_shape([one], rows=2, micro_batches=1)
    batch = collate_padded([one], shape=shape)
    assert batch.tokens.shape == (2, 1, 16)
    assert batch.tokens[0, 0, :9].tolist() == [10, 11, 12, 13, 14, 50, 51, 52, 0]
    assert batch.segments[0, 0, :9].tolist() == [1] * 8 + [0]
    assert batch.positions[0, 0].tolist() == [*range(8), *[0] * 8]
    counted = batch.loss_mask[0, 0] == 1
    assert batch.label_positions[0, 0][counted].tolist() == [4, 5, 6, 7]
    assert batch.labels[0, 0][counted].tolist() == [50, 51, 52, 53]


def test_rows_that_are_left_over_have_no_tokens_and_no_loss():
    shape = padded_shape([example(0)], rows=2, micro_batches=2)
    batch = collate_padded([example(0), example(1), example(2)], shape=shape)
    assert batch.loss_mask.sum(axis=-1).tolist() == [[2, 2], [2, 0]]
    assert batch.segments[1, 1].sum() == 0


def test_the_shape_is_that_of_the_longest():
    examples = [example(0, prompt=30, answer=3), example(1, prompt=2, answer=17)]
    shape = padded_shape(examples, rows=1, micro_batches=1)
    # 33 tokens, of which the last is only predicted: 32 positions are enough.
    assert (shape.length, shape.answer_length) == (32, 32)


def test_every_example_comes_once_an_epoch():
    steps = order(epochs=2)
    assert [len(step) for step in steps] == [4, 4, 2] * 2
    first, second = sum(steps[:3], []), sum(steps[3:], [])
    assert sorted(first) == sorted(second) == [f"r01-{n:04d}" for n in range(10)]
    assert first != second


def test_the_order_is_a_function_of_seed_and_round():
    assert order(seed=1) == order(seed=1)
    assert order(seed=1) != order(seed=2)
    assert order(seed=1, round_index=1) != order(seed=1, round_index=2)


def test_long_examples_are_left_out_by_name(caplog):
    examples = [example(0, prompt=6, answer=2), example(1, prompt=7, answer=2)]
    assert drop_too_long(examples, max_length=8) == (examples[0],)
    assert "1 of 2 examples are longer than 8 tokens" in caplog.text
    assert "r01-0001" in caplog.text
    assert "r01-0000" not in caplog.text


def test_only_long_examples_are_refused():
    with pytest.raises(InputError, match="none of 1 examples is within 4 tokens"):
        drop_too_long([example(0)], max_length=4)


@pytest.mark.parametrize("name", ["prompt_tokens", "answer_tokens"])
def test_an_empty_side_is_refused(name):
    sides = {"prompt_tokens": (1,), "answer_tokens": (2,), name: ()}
    with pytest.raises(InputError, match=f"r01-0007: {name} is empty"):
        TrainingExample(id="r01-0007", **sides)


def test_arrays_are_what_the_device_takes():
    batch = collate_padded(
        [example(0)], shape=padded_shape([example(0)], rows=1, micro_batches=1)
    )
    assert {array.dtype for array in batch[:-1]} == {np.dtype(np.int32)}
    assert batch.loss_mask.dtype == np.float32
