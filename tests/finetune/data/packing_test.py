"""Packing: nothing lost, nothing seen twice, and the same loss and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_families import VOCABULARY, drawn
from training import collate_padded

from isara_jax.finetune.data.collate import BatchShape, TrainBatch, collate
from isara_jax.finetune.data.packing import balanced_steps, pack, pack_steps
from isara_jax.finetune.data.padding import padded_shape, shuffled_steps
from isara_jax.finetune.data.training_example import TrainingExample, num_positions
from isara_jax.finetune.loss import answer_loss
from isara_jax.models.checkpoints.load import load_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh


def example(number, *, prompt, answer):
    return TrainingExample(
        id=f"r01-{number:04d}",
        prompt_tokens=tuple(range(10, 10 + prompt)),
        answer_tokens=tuple(range(50, 50 + answer)),
    )


def examples(count, *, seed=1):
    random = np.random.default_rng(seed)
    return [
        example(number, prompt=int(prompt), answer=int(answer))
        for number, (prompt, answer) in enumerate(random.integers(10, 100, (count, 2)))
    ]


def ids(steps):
    return [[chosen.id for chosen in step] for step in steps]


def order(given=None, *, seed=1, round_index=1, epochs=1, how=balanced_steps):
    given = given or examples(10)
    return list(
        how(
            given,
            examples_per_step=4,
            epochs=epochs,
            round_index=round_index,
            seed=seed,
        )
    )


@pytest.mark.parametrize("count", [1, 3, 4, 10, 33])
def test_every_example_comes_once_an_epoch_as_many_a_step_as_unpacked(count):
    given = examples(count)
    steps, plain = (
        order(given, epochs=2, how=how) for how in (balanced_steps, shuffled_steps)
    )
    assert [len(step) for step in steps] == [len(step) for step in plain]
    half = len(steps) // 2
    for epoch in (steps[:half], steps[half:]):
        assert sorted(sum(ids(epoch), [])) == [one.id for one in given]
    assert count < 10 or ids(steps[:half]) != ids(steps[half:])


def test_the_order_is_a_function_of_seed_and_round():
    assert ids(order()) == ids(order())
    assert ids(order()) != ids(order(seed=2))
    assert ids(order()) != ids(order(round_index=2))


def test_steps_have_about_equally_many_tokens():
    def spread(how):
        steps = order(examples(200), how=how)
        return np.std([sum(map(num_positions, step)) for step in steps])

    assert spread(balanced_steps) < 0.5 * spread(shuffled_steps)


def test_an_example_goes_where_it_leaves_least_room():
    lengths = (9, 2, 12, 9, 5)
    given = [example(n, prompt=length, answer=1) for n, length in enumerate(lengths)]
    rows = pack(given, length=20)
    # Both rows have room for the 2: the first for more, once the 5 is there, the second
    # for just it.
    assert [[num_positions(one) for one in row] for row in rows] == [[12, 5], [9, 9, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_rows_hold_every_example_once_and_no_more_than_fits(seed):
    given = examples(60, seed=seed)
    rows = pack(given, length=256)
    assert sorted(one.id for row in rows for one in row) == [one.id for one in given]
    assert max(sum(map(num_positions, row)) for row in rows) <= 256
    fewest = sum(map(num_positions, given)) / 256
    assert len(rows) <= 11 / 9 * fewest + 2


def test_a_packed_row_s_arrays():
    rows = [[example(0, prompt=3, answer=2), example(1, prompt=1, answer=3)]]
    shape = BatchShape(rows=1, micro_batches=1, length=8, groups=1, answer_length=6)
    batch = TrainBatch(*(array[0, 0].tolist() for array in collate(rows, shape=shape)))
    assert batch.tokens == [10, 11, 12, 50, 10, 50, 51, 0]
    assert batch.segments == [1, 1, 1, 1, 2, 2, 2, 0]
    assert batch.positions == [0, 1, 2, 3, 0, 1, 2, 0]
    assert batch.label_positions == [2, 3, 4, 5, 6, 0]
    assert batch.labels == [50, 51, 50, 51, 52, 0]
    assert batch.loss_mask == [1, 1, 1, 1, 1, 0]


def test_a_group_s_rows_share_the_places_of_the_loss():
    one = [[example(n, prompt=2, answer=2)] for n in range(3)]
    shape = BatchShape(rows=4, micro_batches=1, length=4, groups=2, answer_length=5)
    batch = collate(one, shape=shape)
    assert batch.label_positions[:, 0].tolist() == [[1, 2, 5, 6, 0], [1, 2, 0, 0, 0]]
    assert batch.loss_mask[:, 0].sum(axis=1).tolist() == [4, 2]


def plan(steps, *, micro_batches=1, groups=1, length=0):
    return pack_steps(
        steps, micro_batches=micro_batches, groups=groups, length=length, multiple=16
    )


def test_the_length_of_rows_is_the_cheapest_or_one_s_own():
    steps = order(examples(40))
    own = plan(steps)
    cheapest = own.shape.rows * own.shape.length
    for length in (208, 256, 512, 1024):
        shape = plan(steps, length=length).shape
        assert shape.length == length
        assert cheapest <= shape.rows * length
    longest = max(num_positions(one) for step in steps for one in step)
    assert plan(steps, length=16).shape.length == longest


def test_rows_divide_among_devices_and_micro_batches():
    steps = order(examples(40))
    for micro_batches, groups in ((1, 4), (3, 1), (2, 2)):
        planned = plan(steps, micro_batches=micro_batches, groups=groups, length=256)
        shape = planned.shape
        assert shape.rows % groups == 0
        assert shape.rows * micro_batches >= max(map(len, planned.steps))
        for rows in planned.steps:
            counted = collate(rows, shape=shape).loss_mask.sum()
            answers = [len(one.answer_tokens) for row in rows for one in row]
            assert counted == sum(answers)


@pytest.mark.parametrize("variant", ["LLaMA GQA", "Mistral", "OPT", "OPT 350m"])
def test_loss_and_gradient_are_those_of_padded_rows(tmp_path, variant):
    drawn(variant).save_pretrained(tmp_path)
    model = load_model(
        open_model(tmp_path), dtype="float32", mesh=make_mesh(data=1, model=1)
    )
    random = np.random.default_rng(0)
    given = [
        TrainingExample(
            id=str(number),
            prompt_tokens=tuple(random.integers(3, VOCABULARY, prompt).tolist()),
            answer_tokens=(*random.integers(3, VOCABULARY, answer).tolist(), 2),
        )
        for number, (prompt, answer) in enumerate(random.integers(1, 16, (7, 2)))
    ]
    padded = collate_padded(given, shape=padded_shape(given, rows=7, micro_batches=1))
    steps = [given]
    # The longer rows are longer than the model's context of 64.
    for length in (48, 128):
        packed = plan(steps, length=length)
        assert packed.shape.rows < 5
        batch = collate(packed.steps[0], shape=packed.shape)
        assert_same(gradient(model, batch), gradient(model, padded))


@jax.jit
def gradient(model, batch):
    arrays = TrainBatch(*(jnp.asarray(array)[:, 0] for array in batch))
    return jax.value_and_grad(answer_loss)(model, arrays, remat="none")


def assert_same(got, expected):
    assert float(got[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    wanted = dict(named_tensors(expected[1]))
    whole = np.sqrt(sum(np.sum(np.square(value)) for value in wanted.values()))
    for name, value in named_tensors(got[1]):
        # Some, as of a key's bias, are rounding errors themselves.
        error = np.linalg.norm(value - wanted[name])
        assert error < 1e-5 * max(np.linalg.norm(wanted[name]), 0.01 * whole), name
