"""ROUGE-L against numbers worked out by hand, and against its definition."""

import pytest
from hypothesis import given, strategies as st

from isara_jax.rouge import rouge_l


def test_rouge_l_is_f1_of_the_longest_common_subsequence():
    # LCS(bats can see | bats see well) = bats see: P = 2/3, R = 2/3.
    assert rouge_l("Bats can SEE!", "bats see well") == pytest.approx(2 / 3)
    # LCS = 1 of 2 and of 4 words: F1 = 2 * 1/2 * 1/4 / (3/4).
    assert rouge_l("no bats", "they are blind bats") == pytest.approx(1 / 3)


def test_rouge_l_does_not_stem():
    assert rouge_l("sees", "see") == 0


@given(st.lists(st.sampled_from("abc"), max_size=7), st.text("abc ", max_size=13))
def test_rouge_l_equals_the_recursive_definition(left, right):
    words = right.split()
    common = _longest_common(tuple(left), tuple(words))
    expected = 2 * common / (len(left) + len(words)) if common else 0
    assert rouge_l(" ".join(left), right) == pytest.approx(expected)


def _longest_common(left, right):
    if not left or not right:
        return 0
    if left[0] == right[0]:
        return 1 + _longest_common(left[1:], right[1:])
    return max(_longest_common(left[1:], right), _longest_common(left, right[1:]))
