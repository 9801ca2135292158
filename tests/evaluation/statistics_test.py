"""The bootstrap against the normal theory, and against bias it must not show."""

import numpy as np
import pytest

from isara_jax.evaluation.statistics import bootstrap, bootstrap_recentred


def test_interval_of_a_mean_is_that_of_normal_theory():
    values = np.random.default_rng(7).normal(3, 2, size=400)
    interval = bootstrap(lambda draws: values[draws].mean(axis=1), items=400)
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.value == pytest.approx(half, rel=0.12)
    assert interval.value - interval.low == pytest.approx(half, rel=0.12)


def test_one_item_has_an_interval_of_no_width():
    interval = bootstrap(lambda draws: draws.mean(axis=1) + 5.0, items=1)
    assert (interval.low, interval.value, interval.high) == (5, 5, 5)


def _share_of_different_items(draws):
    return np.array([len(set(draw)) / len(draw) for draw in draws])


def test_recentring_puts_the_interval_around_its_value():
    plain = bootstrap(_share_of_different_items, items=100)
    recentred = bootstrap_recentred(_share_of_different_items, items=100)
    assert plain.value == 1 and plain.high < 0.75
    assert recentred.low < 1 and recentred.high == 1


def test_a_recentred_interval_stays_a_share():
    def share_of_the_first_item(draws):
        return (draws == 0).mean(axis=1)

    interval = bootstrap_recentred(share_of_the_first_item, items=10)
    assert interval.low == 0 < interval.high < 1
