import math

import pytest

from isara_jax.report import round_statistics as statistics
from isara_jax.report.run_data.values import Round, Sample


def sample(rule="", *, question="a b c", similarity=0.5):
    return Sample(
        id="r01-0000",
        round_index=1,
        question=question,
        answer="x",
        nearest_seed_similarity=similarity,
        rule=rule,
    )


def round_of(number, *, kept, rules):
    return Round(
        number=number,
        questions=0,
        answers=0,
        kept=(sample(),) * kept,
        rejected=tuple(sample(rule) for rule in rules),
        steps=(),
        evaluation=None,
        summary=None,
    )


def test_funnel_counts_every_rule_in_every_round():
    rounds = [
        round_of(1, kept=1, rules=["short", "copy", "copy"]),
        round_of(2, kept=2, rules=["short", "echo"]),
        round_of(3, kept=0, rules=[]),
    ]
    funnel = statistics.funnel(rounds)
    rows = {row.label: [cell.count for cell in row.cells] for row in funnel}
    assert list(rows.items()) == [
        ("generated", [4, 4]),
        ("copy", [2, 0]),
        ("short", [1, 1]),
        ("echo", [0, 1]),
        ("kept", [1, 2]),
    ]
    assert funnel[-1].cells[0].share == 0.25
    assert statistics.keep_rate(rounds[1]) == 0.5


def test_funnel_adds_up():
    rounds = [round_of(1, kept=3, rules=["a", "b", "a"])]
    generated, *rejected, kept = statistics.funnel(rounds)
    lost = sum(row.cells[0].count for row in rejected)
    assert generated.cells[0].count == lost + kept.cells[0].count


def test_novelty_is_the_mean_distance_to_the_nearest_seed():
    kept = [sample(similarity=s) for s in (0.2, 0.6, None, math.nan)]
    assert statistics.novelty(kept) == pytest.approx(0.6)


def test_diversity_is_the_share_of_different_word_pairs():
    # ab bc | ab bd: 3 different of 4.
    kept = [sample(question="a b c"), sample(question="A b d")]
    assert statistics.diversity(kept) == 0.75


def test_nothing_kept_has_no_novelty_and_no_diversity():
    assert statistics.novelty([]) is None
    assert statistics.diversity([]) is None
    assert statistics.diversity([sample(question="one")]) is None
