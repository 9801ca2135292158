"""Draws against the distribution that the sampling parameters say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from rule_cases import EOS, VOCABULARY, sampling_params, their_scores, without_text

from isara_jax.engine.sampling.sample import sample


def draw(rules, logits, count):
    """Draws for one row of logits with `count` different keys at once."""
    state = without_text(np.tile(logits, (count, 1)))
    return np.asarray(
        jax.jit(sample, static_argnames="static")(
            jnp.asarray(state.logits),
            static=rules.static,
            traced=rules.traced,
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
    rules, draws = sampling_params(**rules), 20_000
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
    rules = sampling_params(temperature=0.0, top_k=5, top_p=0.5, min_p=0.5)
    assert set(draw(rules, logits, 50)) == {logits.argmax()}
    assert rules.static == sampling_params(temperature=0.0).static


def test_top_1_is_greedy():
    logits = np.random.default_rng(1).normal(size=VOCABULARY)
    assert set(draw(sampling_params(top_k=1), logits, 50)) == {logits.argmax()}
