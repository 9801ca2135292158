"""The decoding rules against transformers' on torch, and the draws against both."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from isara_jax.engine.decoding import Decoding, candidates, choose
from isara_jax.errors import InputError

ROWS, SLOTS, VOCABULARY = 48, 24, 13
STRENGTHS = {"temperature": 0.7, "top_p": 0.6, "repetition_penalty": 1.3}


def decoding(**rules):
    return Decoding(max_new_tokens=1, **{"top_k": 0} | rules)


def random_state(seed, *, end):
    """Logits, and left-padded histories of every length that are written up to `end`.

    Padding and what is not written yet hold tokens of the vocabulary all the same.
    """
    random = np.random.default_rng(seed)
    history = random.integers(0, VOCABULARY, (ROWS, SLOTS))
    segments = np.zeros((ROWS, SLOTS), np.int32)
    for row in range(ROWS):
        segments[row, max(end - row // 2 - 1, 0) : end] = 1
        if row % 2:  # one that turns in circles, so that long n-grams do come back
            history[row] = np.resize(history[row, : row % 5 + 2], SLOTS)
    logits = random.normal(size=(ROWS, VOCABULARY)) * 3
    return logits.astype(np.float32), history.astype(np.int32), segments


def in_full(scores, tokens):
    """Returns the candidates' scores by token, -inf where a token is none."""
    scores, tokens = np.asarray(scores), np.asarray(tokens)
    full = np.full((len(scores), VOCABULARY), -np.inf, np.float32)
    np.put_along_axis(full, tokens, scores, axis=1)
    return full


def seen_tokens(history, segments):
    seen = np.zeros((len(history), VOCABULARY), bool)
    for row, tokens in enumerate(history):
        seen[row, tokens[segments[row] != 0]] = True
    return seen


def our_scores(rules, state):
    logits, history, segments = state
    return in_full(
        *jax.jit(candidates, static_argnames="form")(
            jnp.asarray(logits),
            form=rules.form,
            strengths=rules.strengths,
            history=jnp.asarray(history),
            segments=jnp.asarray(segments),
            seen=jnp.asarray(seen_tokens(history, segments)),
        )
    )


def their_scores(rules, state):
    """Runs transformers row by row: it would count padding as text."""
    import torch
    import transformers

    processors = transformers.LogitsProcessorList()
    if rules.repetition_penalty != 1:
        processors.append(
            transformers.RepetitionPenaltyLogitsProcessor(rules.repetition_penalty)
        )
    if rules.no_repeat_ngram:
        processors.append(
            transformers.NoRepeatNGramLogitsProcessor(rules.no_repeat_ngram)
        )
    if rules.temperature != 1:
        processors.append(transformers.TemperatureLogitsWarper(rules.temperature))
    if rules.top_k:
        processors.append(transformers.TopKLogitsWarper(rules.top_k))
    if rules.top_p < 1:
        processors.append(transformers.TopPLogitsWarper(rules.top_p))
    logits, history, segments = state
    rows = [
        processors(
            torch.tensor(history[row : row + 1, segments[row] != 0], dtype=torch.long),
            torch.tensor(logits[row : row + 1]),
        )
        for row in range(len(logits))
    ]
    return torch.cat(rows).numpy()


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
        {"repetition_penalty": 1.3, "no_repeat_ngram": 2},
        {**STRENGTHS, "no_repeat_ngram": 2, "top_k": 5},
        {**STRENGTHS, "no_repeat_ngram": 3},
    ],
    ids=str,
)
def test_the_rules_are_those_of_transformers(rules):
    rules = decoding(**rules)
    for seed, end in enumerate((20, 22, SLOTS)):
        state = random_state(seed, end=end)
        ours, theirs = our_scores(rules, state), their_scores(rules, state)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("length", [2, 3, 10])
def test_the_histories_hold_repeated_ngrams(length):
    state = random_state(0, end=20)
    ruled_out = np.isinf(their_scores(decoding(no_repeat_ngram=length), state))
    assert ruled_out.any(axis=1).sum() > 5


def test_of_tied_tokens_the_lower_ids_are_in_the_top_k():
    logits = np.zeros((1, VOCABULARY), np.float32)
    logits[0, 4] = 1
    _, history, segments = random_state(0, end=20)
    kept = our_scores(decoding(top_k=3), (logits, history[:1], segments[:1]))
    assert np.flatnonzero(np.isfinite(kept[0])).tolist() == [0, 1, 4]


def draw(rules, logits, count):
    """Draws for one row of logits with `count` different keys at once."""
    rows = jnp.tile(jnp.asarray(logits, jnp.float32), (count, 1))
    nothing = jnp.zeros((count, 1), jnp.int32)
    return np.asarray(
        jax.jit(choose, static_argnames="form")(
            rows,
            form=rules.form,
            strengths=rules.strengths,
            history=nothing,
            segments=nothing,
            seen=jnp.zeros(rows.shape, bool),
            keys=jax.random.split(jax.random.key(0), count),
        )
    )


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"temperature": 1.7},
        {"temperature": 0.5},
        {"top_k": 6},
        {"top_p": 0.8},
        {"temperature": 1.7, "top_k": 8, "top_p": 0.8},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(rules):
    rules, draws = decoding(**rules), 20_000
    logits = np.random.default_rng(5).normal(size=(1, VOCABULARY)).astype(np.float32)
    nothing = np.zeros((1, 1), np.int32)
    scores = their_scores(rules, (logits, nothing, nothing))[0].astype(np.float64)
    expected = draws * np.exp(scores) / np.exp(scores).sum()
    counts = np.bincount(draw(rules, logits[0], draws), minlength=VOCABULARY)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert possible.sum() > 3
    assert scipy.stats.chisquare(counts[possible], expected[possible]).pvalue > 0.001


def test_greedy_is_the_best_token_whatever_the_rules_of_sampling_say():
    logits = np.random.default_rng(1).normal(size=VOCABULARY)
    rules = decoding(temperature=0.0, top_k=5, top_p=0.5)
    assert set(draw(rules, logits, 50)) == {logits.argmax()}
    assert rules.form == decoding(temperature=0.0).form


def test_top_1_is_greedy():
    logits = np.random.default_rng(1).normal(size=VOCABULARY)
    assert set(draw(decoding(top_k=1), logits, 50)) == {logits.argmax()}


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("max_new_tokens", 0, ">= 1"),
        ("temperature", -0.1, ">= 0"),
        ("temperature", float("nan"), ">= 0"),
        ("top_k", -1, ">= 0"),
        ("top_p", 0.0, r"in \(0, 1\]"),
        ("top_p", 1.01, r"in \(0, 1\]"),
        ("repetition_penalty", 0.0, "> 0"),
        ("no_repeat_ngram", -1, ">= 0"),
    ],
)
def test_a_bad_value_is_named(field, value, rule):
    with pytest.raises(InputError, match=rf"^{field}={value}: must be {rule}$"):
        Decoding(**{"max_new_tokens": 1, field: value})


def test_strengths_do_not_change_what_is_compiled():
    rules = decoding(**STRENGTHS)
    changed = [
        dataclasses.replace(rules, **{field: value * 0.9})
        for field, value in STRENGTHS.items()
    ]
    assert {other.form for other in changed} == {rules.form}
    leaves = [jax.tree.leaves(other.strengths) for other in [rules, *changed]]
    assert len(np.unique(leaves, axis=0)) == 4
