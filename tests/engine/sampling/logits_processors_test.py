"""The decoding rules against transformers' on torch."""

import dataclasses

import numpy as np
import pytest
from rule_cases import (
    EOS,
    ROWS,
    SLOTS,
    VOCABULARY,
    left_aligned,
    our_scores,
    random_state,
    sampling_params,
    their_scores,
    without_text,
)

STRENGTHS = {
    "temperature": 0.7,
    "top_p": 0.6,
    "min_p": 0.2,
    "repetition_penalty": 1.3,
    "length_decay_factor": 1.4,
}
ENDS = {"min_new_tokens": 4, "length_decay_start": 6, "length_decay_factor": 1.2}


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        *({"no_repeat_ngram": length} for length in (1, 2, 3, 4, 10, 25)),
        {"temperature": 0.7},
        {"top_k": 1},
        {"top_k": 5},
        {"top_k": VOCABULARY + 10},
        {"top_p": 0.6},
        {"top_p": 1e-6},
        {"top_k": 5, "top_p": 0.6},
        {"min_p": 0.3},
        {"min_p": 1.0},
        {"top_k": 5, "min_p": 0.1},
        {"top_p": 0.9, "min_p": 0.05},
        {"min_new_tokens": 4},
        {"length_decay_start": 6, "length_decay_factor": 1.2},
        {"length_decay_start": 2, "length_decay_factor": 0.8},
        {"length_decay_factor": 1.6},
        ENDS,
        *(
            {"beams": 2, "temperature": 0.9} | sampled
            for sampled in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0})
        ),
        {"repetition_penalty": 1.3, "no_repeat_ngram": 2},
        {**STRENGTHS, **ENDS, "no_repeat_ngram": 2, "top_k": 5},
        {**STRENGTHS, **ENDS, "no_repeat_ngram": 3},
    ],
    ids=str,
)
def test_the_rules_are_those_of_transformers(rules):
    rules = sampling_params(**rules)
    for seed, end in enumerate((20, 22, SLOTS)):
        state = random_state(seed, end=end)
        theirs = their_scores(rules, state)
        np.testing.assert_allclose(our_scores(rules, state), theirs, rtol=1e-5)
    ragged = left_aligned(state)
    assert len(set(ragged.lengths)) > 20
    np.testing.assert_allclose(our_scores(rules, ragged), theirs, rtol=1e-5)


def test_rows_are_before_and_after_every_length():
    generated = random_state(0, end=20).generated
    for length in (ENDS["min_new_tokens"], ENDS["length_decay_start"]):
        assert 5 < (generated < length).sum() < ROWS - 5


def test_a_decay_that_goes_through_the_roof_is_certain_and_finite():
    state = random_state(0, end=20)
    state = dataclasses.replace(state, generated=np.full(ROWS, 900, np.int32))
    kept = our_scores(sampling_params(length_decay_factor=2.0, temperature=0.1), state)
    assert np.isfinite(kept).all()
    assert (kept[:, EOS] > 1e29).all() and (np.delete(kept, EOS, axis=1) < 1e3).all()


@pytest.mark.parametrize("length", [2, 3, 10])
def test_the_histories_hold_repeated_ngrams(length):
    state = random_state(0, end=20)
    ruled_out = np.isinf(their_scores(sampling_params(no_repeat_ngram=length), state))
    assert ruled_out.any(axis=1).sum() > 5


def test_of_tied_tokens_the_lower_ids_are_in_the_top_k():
    logits = np.zeros((1, VOCABULARY), np.float32)
    logits[0, 4] = 1
    kept = our_scores(sampling_params(top_k=3), without_text(logits))
    assert np.flatnonzero(np.isfinite(kept[0])).tolist() == [0, 1, 4]
