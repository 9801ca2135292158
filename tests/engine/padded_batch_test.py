"""The plan of a step's batches, and how a batch is laid out."""

import numpy as np
import pytest
from completions import random_prompts
from hypothesis import given, settings, strategies as st

from isara_jax.engine.kv_cache.sizes import bucketed_len
from isara_jax.engine.padded_batch import (
    PROMPT_STEP,
    BatchShape,
    PaddedBatch,
    left_padded,
    plan_batches,
)
from isara_jax.engine.request import Request
from isara_jax.errors import InputError

CONTEXT = 400


def planned(prompts, *, slots, row_multiple=1):
    return plan_batches(
        prompts,
        slots=slots,
        row_multiple=row_multiple,
        context=CONTEXT,
    )


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, CONTEXT), min_size=1, max_size=60),
    slots=st.integers(1, 40),
    row_multiple=st.sampled_from([1, 2, 4, 8]),
    random=st.randoms(use_true_random=False),
)
def test_a_plan(lengths, slots, row_multiple, random):
    prompts = random_prompts(*lengths)
    batches = planned(prompts, slots=slots, row_multiple=row_multiple)
    sort_key = [prompt for batch in batches for prompt in batch.prompts]
    assert sorted(sort_key, key=lambda prompt: prompt.sample_index) == prompts
    assert [len(prompt.token_ids) for prompt in sort_key] == sorted(lengths)

    most = max(slots // row_multiple, 1) * row_multiple
    assert len(batches) == -(-len(prompts) // most)
    (rows,) = {batch.shape.rows for batch in batches}
    assert rows <= most
    assert rows % row_multiple == 0
    *full, last = (len(batch.prompts) for batch in batches)
    assert 0 < last <= rows
    assert all(last <= count <= rows for count in full)
    assert len(set(full)) <= 1
    for batch in batches:
        fits(batch)

    random.shuffle(prompts)
    assert planned(prompts, slots=slots, row_multiple=row_multiple) == batches


def fits(batch):
    longest = max(len(prompt.token_ids) for prompt in batch.prompts)
    assert longest <= batch.shape.prompt < longest + PROMPT_STEP
    assert batch.shape.prompt % PROMPT_STEP == 0


def test_prompts_of_one_length_keep_the_order_of_their_numbers():
    (batch,) = planned(random_prompts(5, 3, 5, 3)[::-1], slots=4)
    assert [prompt.sample_index for prompt in batch.prompts] == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("prompts", "slots", "row_multiple", "rows"),
    [
        (64, 24, 1, [22, 22, 20]),  # not 24, 24, 16
        (33, 32, 8, [17, 16]),
        (32, 4, 8, [8, 8, 8, 8]),  # a row a device, though more than the slots
        (32, 30, 8, [16, 16]),  # 24 rows at most
        (3, 8, 1, [3]),
    ],
)
def test_rows_are_shared_out_evenly(prompts, slots, row_multiple, rows):
    batches = planned(
        random_prompts(*[9] * prompts), slots=slots, row_multiple=row_multiple
    )
    assert [len(batch.prompts) for batch in batches] == rows


def test_nothing_is_planned_for_no_prompts():
    assert planned([], slots=4) == ()


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_prompt_that_does_not_fit_is_refused_by_its_id(length):
    prompts = random_prompts(5, CONTEXT, length)
    with pytest.raises(
        InputError,
        match=f"the prompt r01-0002 has {length} tokens; with 0 new ones "
        f".* context of {CONTEXT}",
    ):
        planned(prompts, slots=4)


def test_capacity_is_no_power_of_two():
    capacities = [bucketed_len(positions) for positions in range(1, 5000)]
    assert all(capacity & (capacity - 1) for capacity in capacities)
    assert all(
        positions <= capacity < positions + max(96, positions / 4)
        for positions, capacity in enumerate(capacities, start=1)
    )
    assert {capacity % 32 for capacity in capacities} == {0}
    # Each is compiled for.
    assert len(set(capacities)) < 50
    assert bucketed_len(600) == 640 and bucketed_len(600, step=256) == 768


def test_rows_are_padded_on_the_left_and_missing_ones_repeat_the_last():
    prompts = tuple(
        Request(id=str(number), sample_index=number, token_ids=tokens)
        for number, tokens in enumerate([(5,), (0, 7, 8)])
    )
    shape = BatchShape(rows=4, prompt=4)
    tokens, segments = left_padded(PaddedBatch(prompts=prompts, shape=shape))
    assert tokens.tolist() == [[0, 0, 0, 5], *[[0, 0, 7, 8]] * 3]
    assert segments.tolist() == [[0, 0, 0, 1], *[[0, 1, 1, 1]] * 3]
    assert tokens.dtype == segments.dtype == np.int32
