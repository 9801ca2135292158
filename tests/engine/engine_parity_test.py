"""Greedy generation in slots against transformers, text by text."""

import dataclasses

import pytest
from completions import GREEDY, complete, random_prompts
from tiny_llama import tiny_llama, torch_llama
from twin_texts import their_texts

FIFTY = random_prompts(1, 5, 70, 12, 30, 3, 12, 8, *range(2, 107, 5), *range(40, 61))


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 1.1, "no_repeat_ngram": 2},
        {"min_new_tokens": 5},
        {"length_decay_start": 3, "length_decay_factor": 1.2},
        {
            "repetition_penalty": 1.1,
            "no_repeat_ngram": 2,
            "min_new_tokens": 5,
            "length_decay_start": 5,
            "length_decay_factor": 1.1,
        },
    ],
    ids=str,
)
def test_greedy_is_that_of_transformers(rules):
    assert len(FIFTY) == 50
    model = tiny_llama()
    twin = torch_llama(model).eval()
    sampling_params = dataclasses.replace(GREEDY, max_new_tokens=12, **rules)
    # What some row writes on its way, so that it ends there and others do not.
    eos = complete(model, FIFTY, sampling_params=sampling_params)["r01-0007"].tokens[6]
    ours = complete(model, FIFTY, sampling_params=sampling_params, eos=(eos,))
    theirs = their_texts(twin, FIFTY, sampling_params=sampling_params, eos=(eos,))
    assert {id: completion.tokens for id, completion in ours.items()} == theirs
    assert {completion.finish_reason for completion in ours.values()} == {
        "eos",
        "length",
    }
