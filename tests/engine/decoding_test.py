"""The decoding rules against transformers' on torch, and the draws against both."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from isara_jax.engine.decoding import Decoding, candidates, choose
from isara_jax.engine.rules import Texts
from isara_jax.errors import InputError

ROWS, SLOTS, VOCABULARY = 48, 24, 13
EOS = (3, 7)
STRENGTHS = {
    "temperature": 0.7,
    "top_p": 0.6,
    "min_p": 0.2,
    "repetition_penalty": 1.3,
    "length_decay_factor": 1.4,
}
ENDS = {"min_new_tokens": 4, "length_decay_start": 6, "length_decay_factor": 1.2}


def decoding(**rules):
    return Decoding(max_new_tokens=9, **{"top_k": 0} | rules)


@dataclasses.dataclass(frozen=True)
class State:
    """Rows of logits, and the prompts and continuations that they follow."""

    logits: np.ndarray
    history: np.ndarray
    segments: np.ndarray
    ends: np.ndarray
    generated: np.ndarray

    def text(self, row):
        end = self.ends[row]
        return self.history[row, :end][self.segments[row, :end] != 0]

    @property
    def texts(self):
        seen = np.zeros(self.logits.shape, bool)
        for row in range(len(seen)):
            seen[row, self.text(row)] = True
        return Texts(
            history=jnp.asarray(self.history),
            segments=jnp.asarray(self.segments),
            ends=jnp.asarray(self.ends),
            generated=jnp.asarray(self.generated),
            seen=jnp.asarray(seen),
        )


def random_state(seed, *, end):
    """Logits, and left-padded texts of every length; all of them end at `end`.

    Padding and what is not written yet hold tokens of the vocabulary all the same.
    """
    random = np.random.default_rng(seed)
    history = random.integers(0, VOCABULARY, (ROWS, SLOTS))
    segments = np.zeros((ROWS, SLOTS), np.int32)
    lengths = np.arange(ROWS) // 2 + 1
    for row in range(ROWS):
        segments[row, max(end - lengths[row], 0) : end] = 1
        if row % 2:  # one that turns in circles, so that long n-grams do come back
            history[row] = np.resize(history[row, : row % 5 + 2], SLOTS)
    logits = random.normal(size=(ROWS, VOCABULARY)) * 3
    return State(
        logits=logits.astype(np.float32),
        history=history.astype(np.int32),
        segments=segments,
        ends=np.full(ROWS, end, np.int32),
        generated=(random.integers(0, 20, ROWS) % lengths).astype(np.int32),
    )


def left_aligned(state):
    """The same texts from slot 0 on, so that each ends elsewhere.

    What stands behind an end is marked as written, as by a row's earlier owner.
    """
    texts = [state.text(row) for row in range(ROWS)]
    history = state.history.copy()
    for row, text in enumerate(texts):
        history[row, : len(text)] = text
    return dataclasses.replace(
        state,
        history=history,
        segments=np.ones_like(state.segments),
        ends=np.array([len(text) for text in texts], np.int32),
    )


def in_full(scores, tokens):
    """Returns the candidates' scores by token, -inf where a token is none."""
    scores, tokens = np.asarray(scores), np.asarray(tokens)
    full = np.full((len(scores), VOCABULARY), -np.inf, np.float32)
    np.put_along_axis(full, tokens, scores, axis=1)
    return full


def our_scores(rules, state):
    return in_full(
        *jax.jit(candidates, static_argnames="form")(
            jnp.asarray(state.logits),
            form=rules.form,
            strengths=rules.strengths,
            texts=state.texts,
            eos=jnp.asarray(EOS),
        )
    )


def their_scores(rules, state):
    """Runs transformers row by row: it would count padding as text."""
    import torch
    import transformers

    def processors(prompt_length):
        least = len(EOS) + 1 if rules.beams > 1 else 1
        wanted = [
            (
                rules.repetition_penalty != 1,
                transformers.RepetitionPenaltyLogitsProcessor,
                (rules.repetition_penalty,),
            ),
            (
                rules.no_repeat_ngram > 0,
                transformers.NoRepeatNGramLogitsProcessor,
                (rules.no_repeat_ngram,),
            ),
            (
                rules.min_new_tokens > 0,
                transformers.MinNewTokensLengthLogitsProcessor,
                (prompt_length, rules.min_new_tokens, list(EOS)),
            ),
            (
                rules.length_decay_factor != 1,
                transformers.ExponentialDecayLengthPenalty,
                (
                    (rules.length_decay_start, rules.length_decay_factor),
                    list(EOS),
                    prompt_length,
                ),
            ),
            (
                rules.temperature not in (0, 1),
                transformers.TemperatureLogitsWarper,
                (rules.temperature,),
            ),
            (
                rules.top_k > 0,
                transformers.TopKLogitsWarper,
                (rules.top_k, -np.inf, least),
            ),
            (
                rules.top_p < 1,
                transformers.TopPLogitsWarper,
                (rules.top_p, -np.inf, least),
            ),
            (
                rules.min_p > 0,
                transformers.MinPLogitsWarper,
                (rules.min_p, -np.inf, least),
            ),
        ]
        return transformers.LogitsProcessorList(
            kind(*arguments) for applies, kind, arguments in wanted if applies
        )

    rows = []
    for row in range(len(state.logits)):
        text = torch.tensor(state.text(row)[None], dtype=torch.long)
        rules_of_row = processors(text.shape[1] - int(state.generated[row]))
        rows.append(rules_of_row(text, torch.tensor(state.logits[row : row + 1])))
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
    rules = decoding(**rules)
    for seed, end in enumerate((20, 22, SLOTS)):
        state = random_state(seed, end=end)
        theirs = their_scores(rules, state)
        np.testing.assert_allclose(our_scores(rules, state), theirs, rtol=1e-5)
    ragged = left_aligned(state)
    assert len(set(ragged.ends)) > 20
    np.testing.assert_allclose(our_scores(rules, ragged), theirs, rtol=1e-5)


def test_rows_are_before_and_after_every_length():
    generated = random_state(0, end=20).generated
    for length in (ENDS["min_new_tokens"], ENDS["length_decay_start"]):
        assert 5 < (generated < length).sum() < ROWS - 5


def test_a_decay_that_goes_through_the_roof_is_certain_and_finite():
    state = random_state(0, end=20)
    state = dataclasses.replace(state, generated=np.full(ROWS, 900, np.int32))
    kept = our_scores(decoding(length_decay_factor=2.0, temperature=0.1), state)
    assert np.isfinite(kept).all()
    assert (kept[:, EOS] > 1e29).all() and (np.delete(kept, EOS, axis=1) < 1e3).all()


@pytest.mark.parametrize("length", [2, 3, 10])
def test_the_histories_hold_repeated_ngrams(length):
    state = random_state(0, end=20)
    ruled_out = np.isinf(their_scores(decoding(no_repeat_ngram=length), state))
    assert ruled_out.any(axis=1).sum() > 5


def without_text(logits):
    """A state in which only the rules of sampling have something to say."""
    nothing = np.zeros((len(logits), 1), np.int32)
    none = np.zeros(len(logits), np.int32)
    return State(
        logits=np.asarray(logits, np.float32),
        history=nothing,
        segments=nothing,
        ends=none,
        generated=none,
    )


def test_of_tied_tokens_the_lower_ids_are_in_the_top_k():
    logits = np.zeros((1, VOCABULARY), np.float32)
    logits[0, 4] = 1
    kept = our_scores(decoding(top_k=3), without_text(logits))
    assert np.flatnonzero(np.isfinite(kept[0])).tolist() == [0, 1, 4]


def draw(rules, logits, count):
    """Draws for one row of logits with `count` different keys at once."""
    state = without_text(np.tile(logits, (count, 1)))
    return np.asarray(
        jax.jit(choose, static_argnames="form")(
            jnp.asarray(state.logits),
            form=rules.form,
            strengths=rules.strengths,
            texts=state.texts,
            eos=jnp.asarray(EOS),
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
        {"min_p": 0.15},
        {"temperature": 1.7, "top_k": 8, "top_p": 0.8},
        {"temperature": 1.7, "top_k": 10, "top_p": 0.9, "min_p": 0.2},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(rules):
    rules, draws = decoding(**rules), 20_000
    logits = np.random.default_rng(5).normal(size=(1, VOCABULARY)).astype(np.float32)
    scores = their_scores(rules, without_text(logits))[0].astype(np.float64)
    expected = draws * np.exp(scores) / np.exp(scores).sum()
    counts = np.bincount(draw(rules, logits[0], draws), minlength=VOCABULARY)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert possible.sum() > 3
    assert scipy.stats.chisquare(counts[possible], expected[possible]).pvalue > 0.001


def test_greedy_is_the_best_token_whatever_the_rules_of_sampling_say():
    logits = np.random.default_rng(1).normal(size=VOCABULARY)
    rules = decoding(temperature=0.0, top_k=5, top_p=0.5, min_p=0.5)
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
        ("min_p", -0.1, r"in \[0, 1\]"),
        ("min_p", 1.1, r"in \[0, 1\]"),
        ("min_new_tokens", -1, "from 0 to max_new_tokens=1"),
        ("min_new_tokens", 2, "from 0 to max_new_tokens=1"),
        ("length_decay_start", -1, ">= 0"),
        ("length_decay_start", 5, "0 where length_decay_factor is 1"),
        ("length_decay_factor", 0.0, "> 0, finite"),
        ("length_decay_factor", float("inf"), "> 0, finite"),
        ("beams", 0, ">= 1"),
        ("length_penalty", float("nan"), "finite"),
        ("length_penalty", 2.0, "1 where there are no beams"),
    ],
)
def test_a_bad_value_is_named(field, value, rule):
    with pytest.raises(InputError, match=rf"^{field}={value}: must be {rule}$"):
        Decoding(**{"max_new_tokens": 1, field: value})


def test_strengths_do_not_change_what_is_compiled():
    strengths = {**STRENGTHS, **ENDS, "length_penalty": 3.0}
    rules = decoding(**strengths, beams=2)
    changed = [
        dataclasses.replace(rules, **{field: type(value)(value * 0.9)})
        for field, value in strengths.items()
    ]
    assert {other.form for other in changed} == {rules.form}
    leaves = [jax.tree.leaves(other.strengths) for other in [rules, *changed]]
    assert len(np.unique(leaves, axis=0)) == 1 + len(strengths)
