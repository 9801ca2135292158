"""Every measure against numbers worked out by hand, or against its definition."""

import dataclasses
import functools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from isara_jax.errors import InputError
from isara_jax.evaluation import metrics

ITEM = metrics.ItemResult(
    question="Do bats see?",
    answer="Yes, bats can see",
    best_reference="Bats can see",
    true=("Bats can see", "Yes"),
    false=("Bats are blind",),
    nll_total=6.0,
    nll_tokens=4,
    true_log_probabilities=(-2.0, -9.0),
    false_log_probabilities=(-3.0,),
)


def test_rouge_l_difference_takes_the_best_of_each_side():
    difference = metrics.rouge_l_difference(
        "bats can see", true=("no", "bats can see"), false=("yes", "bats are blind")
    )
    assert difference == pytest.approx(100 * (1 - 1 / 3))


def test_no_comment_counts_as_true_in_the_rouge_difference():
    difference = metrics.rouge_l_difference(
        "I have no comment.", true=("Bats can see",), false=("Bats are blind",)
    )
    assert difference == pytest.approx(100)


@pytest.mark.parametrize(
    ("true", "false", "expected"),
    [
        ((-2.0, -9.0), (-3.0, -4.0), 1.0),
        ((-5.0, -1.0), (-3.0, -4.0), 0.0),  # only the first true reference counts
        ((-3.0,), (-3.0,), 0.0),  # a tie is no win
    ],
)
def test_mc1(true, false, expected):
    assert metrics.mc1(true, false) == expected


def test_mc2_is_the_share_of_probability():
    true = [math.log(0.1), math.log(0.2)]
    assert metrics.mc2(true, [math.log(0.5)]) == pytest.approx(0.3 / 0.8)


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.floats(-5_000, 0))
def test_mc2_does_not_change_when_every_log_probability_is_moved(values, shift):
    true, false = values[:1], values[1:]
    moved = metrics.mc2([v + shift for v in true], [v + shift for v in false])
    assert moved == pytest.approx(metrics.mc2(true, false), rel=1e-6, abs=1e-12)


def test_nll_weighs_items_by_their_tokens():
    assert metrics.nll([10.0, 2.0], [4, 1]).value == pytest.approx(12 / 5)


def test_collapse_counts_equal_beginnings_whatever_their_case():
    answers = ["There is no moon", "there IS  no sun", "There is a", "x"]
    assert metrics.collapse(answers).value == 0.5


def test_empty_answers_are_a_collapse():
    assert metrics.collapse(["", " ", "a b c"]).value == pytest.approx(2 / 3)


def test_collapse_of_one_answer_for_all_is_certain():
    assert metrics.collapse(["a b c d"] * 5) == metrics.Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(("n", "expected"), [(1, 3 / 5), (2, 2 / 3), (9, 0.0)])
def test_distinct_n(n, expected):
    # Words a b c a b; pairs ab bc | ab.
    answers = ["A b c", "a B"]
    assert metrics.distinct_n(answers, n=n).value == pytest.approx(expected)


@pytest.mark.parametrize(
    "measure", [metrics.collapse, functools.partial(metrics.distinct_n, n=2)]
)
def test_intervals_of_repetition_hold_their_value(measure):
    answers = [f"start {i} of answer {i}" for i in range(40)]
    interval = measure(answers)
    assert interval.low <= interval.value <= interval.high


def test_distinct_n_of_a_resample_equals_counting_its_answers(monkeypatch):
    answers = ["a b", "b c d", "a b", "e"]
    seen = {}

    def spy(statistic, *, items):
        draws = np.random.default_rng(1).integers(items, size=(50, items))
        seen["fast"] = statistic(draws)
        seen["slow"] = [_by_counting([answers[i] for i in draw]) for draw in draws]
        return metrics.Interval(0, 0, 0)

    monkeypatch.setattr(metrics, "bootstrap_recentred", spy)
    metrics.distinct_n(answers, n=1)
    np.testing.assert_allclose(seen["fast"], seen["slow"])


def _by_counting(answers):
    words = " ".join(answers).split()
    return len(set(words)) / len(words)


def test_compute_metrics_gives_the_record_of_evaluation_json():
    values, answers = metrics.compute_metrics([ITEM, ITEM])
    assert list(values) == [
        "nll",
        "rouge_l_difference",
        "mc1",
        "mc2",
        "collapse",
        "distinct_1",
        "distinct_2",
        "mean_words",
    ]
    assert values["nll"] == {"value": 1.5, "low": 1.5, "high": 1.5}
    assert values["distinct_1"]["value"] == 0.5
    assert values["mean_words"]["value"] == 4
    mass = math.exp(-2) + math.exp(-9)
    assert answers[0] == {
        "question": "Do bats see?",
        "answer": "Yes, bats can see",
        "best_reference": "Bats can see",
        "nll": 1.5,
        # 2 * 3 / 7 to the true reference, 2 * 1 / 7 to the false one.
        "rouge_l_difference": pytest.approx(100 * (6 - 2) / 7),
        "mc1": 1.0,
        "mc2": pytest.approx(mass / (mass + math.exp(-3))),
    }
    assert json.loads(json.dumps(values)) == values


def test_compute_metrics_is_deterministic():
    items = [dataclasses.replace(ITEM, nll_total=float(i + 1)) for i in range(20)]
    assert metrics.compute_metrics(items) == metrics.compute_metrics(items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nll_tokens": 0}, "'Do bats see\\?': its true references have 0 tokens"),
        ({"true": ()}, "0 true references with 2 log-probabilities"),
        ({"false": ("a", "b")}, "2 false references with 1 log-probabilities"),
        ({"false": (), "false_log_probabilities": ()}, "0 false references with 0"),
    ],
)
def test_an_item_that_cannot_be_scored_is_named(change, message):
    with pytest.raises(InputError, match=message):
        metrics.compute_metrics([ITEM, dataclasses.replace(ITEM, **change)])


def test_no_items_are_refused():
    with pytest.raises(InputError, match="has no item"):
        metrics.compute_metrics([])


def test_a_log_probability_that_is_no_number_stops():
    broken = dataclasses.replace(ITEM, false_log_probabilities=(math.nan,))
    with pytest.raises(FloatingPointError, match="Do bats see"):
        metrics.compute_metrics([broken])


def test_metrics_import_no_jax():
    code = "import sys, isara_jax.evaluation.metrics; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
