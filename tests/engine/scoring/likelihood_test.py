"""Log-probabilities of continuations against torch, however they are grouped."""

import re

import numpy as np
import pytest
from completions import one_device, place
from tiny_llama import TINY, tiny_llama, torch_llama

from isara_jax.engine.scoring.likelihood import (
    HEAD_CHUNK,
    LoglikelihoodRequest,
    loglikelihood,
)
from isara_jax.errors import InputError
from isara_jax.runtime.mesh import make_mesh


def random_tokens(random, length):
    return tuple(random.integers(0, TINY.vocab_size, length).tolist())


def random_items():
    """Lengths on both sides of every bucket, and from none to many continuations."""
    random = np.random.default_rng(11)
    lengths = [
        (1, (1,)),
        (31, (16, 1, 17)),
        (32, ()),
        (5, (40, 3, 33, 8, 2)),
        (33, (15, 15)),
        (64, (TINY.context - 64,)),
        (2, (30, 31, 32, 30, 31, 32)),
        (20, (25, 25, 25, 25)),
    ]
    return [
        LoglikelihoodRequest(
            prompt=random_tokens(random, prompt),
            continuations=tuple(random_tokens(random, count) for count in counts),
        )
        for prompt, counts in lengths
    ]


ITEMS = random_items()


def scores(items, *, slots=8, model=None, mesh=None, check=lambda: None):
    return list(
        loglikelihood(
            model or tiny_llama(),
            items,
            slots=slots,
            mesh=mesh or one_device(),
            check=check,
        )
    )


def assert_close(sums, others):
    assert [len(values) for values in sums] == [len(values) for values in others]
    np.testing.assert_allclose(
        [value for values in sums for value in values],
        [value for values in others for value in values],
        rtol=1e-5,
    )


@pytest.fixture(scope="module")
def by_torch():
    import torch

    twin = torch_llama(tiny_llama()).eval()

    def log_probability(prompt, continuation):
        tokens = torch.tensor([prompt + continuation])
        with torch.no_grad():
            each = torch.log_softmax(twin(tokens).logits[0, len(prompt) - 1 : -1], -1)
        return each[range(len(continuation)), tokens[0, len(prompt) :]].sum().item()

    return [
        tuple(log_probability(item.prompt, text) for text in item.continuations)
        for item in ITEMS
    ]


@pytest.mark.parametrize("slots", [1, 3, 8, 100])
def test_scores_are_those_of_torch_in_any_slots(by_torch, slots):
    assert_close(scores(ITEMS, slots=slots), by_torch)


def test_a_group_takes_the_head_more_than_once():
    longest = sorted(len(text) for item in ITEMS for text in item.continuations)[-8:]
    assert sum(longest) > HEAD_CHUNK


@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2)])
def test_eight_devices_are_one(by_torch, compilations, data, model):
    mesh = make_mesh(data=data, model=model)
    split = place(tiny_llama(), mesh)
    assert_close(scores(ITEMS, slots=3, model=split, mesh=mesh), by_torch)
    # Three slots were as many as there are devices to share the rows.
    compilations.clear()
    scores(ITEMS, slots=data, model=split, mesh=mesh)
    assert compilations == []


def test_order_and_company_make_no_difference(by_torch):
    assert_close(scores(ITEMS[::-1])[::-1], by_torch)
    one_each = [
        LoglikelihoodRequest(prompt=item.prompt, continuations=(text,))
        for item in ITEMS
        for text in item.continuations
    ]
    singly = iter(values[0] for values in scores(one_each))
    assert_close(
        [tuple(next(singly) for _ in item.continuations) for item in ITEMS], by_torch
    )


def test_nothing_is_compiled_for_more_of_the_same_shapes(compilations):
    scores(ITEMS)
    compilations.clear()
    scores(
        [
            LoglikelihoodRequest(prompt=i.prompt[::-1], continuations=i.continuations)
            for i in ITEMS
        ]
    )
    assert compilations == []


def test_no_items_have_no_scores():
    assert scores([]) == []


def test_check_is_called_before_every_group():
    calls = []
    scores(ITEMS, slots=3, check=lambda: calls.append(None))
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("prompt", "continuations"), [(0, [3]), (4, [3, 0]), (100, [1, 29]), (129, [])]
)
def test_what_cannot_be_scored_is_refused(prompt, continuations):
    misfit = LoglikelihoodRequest(
        prompt=(5,) * prompt, continuations=tuple((6,) * n for n in continuations)
    )
    sizes = f"a prompt of {prompt} tokens and continuations of {continuations}"
    with pytest.raises(
        InputError, match=rf"^item 1 to score has {re.escape(sizes)}; .* of 128 "
    ):
        scores([ITEMS[0], misfit])
