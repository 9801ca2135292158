"""Demonstrations in an order in which many prompts begin alike."""

import itertools
import random

import pytest

from isara_jax.examples import Example
from isara_jax.prompts.demo_order import order_demos


def demos(letters):
    return [Example(question=x, answer=x, origin=x) for x in letters]


def texts(prompts):
    return ["".join(demo.origin for demo in demos) for demos in prompts]


def branches(prompts):
    """Counts the demonstrations that are computed where beginnings are shared."""
    return len({text[:count] for text in prompts for count in range(1, len(text) + 1)})


def test_the_papers_order_is_that_of_the_draw():
    drawn = ["bca", "cab", ""]
    assert texts(order_demos(map_demos(drawn), order="paper")) == drawn


def map_demos(prompts):
    return [demos(prompt) for prompt in prompts]


@pytest.mark.parametrize(
    ("drawn", "shared"),
    [
        (["ab", "ca", "ad"], ["ab", "ac", "ad"]),
        (["abc", "bcd", "cbe"], ["bca", "bcd", "bce"]),
        (["ab", "cd", "dc", "xa"], ["ab", "cd", "cd", "ax"]),
        (["ab", "cd"], ["ab", "cd"]),
        (["ba", "ba"], ["ba", "ba"]),
        (["", "a", "ba"], ["", "a", "ab"]),
        ([], []),
    ],
)
def test_what_most_prompts_have_comes_first(drawn, shared):
    assert texts(order_demos(map_demos(drawn), order="shared")) == shared


def test_every_prompt_keeps_its_demonstrations_and_less_is_computed():
    rng = random.Random(0)
    drawn = ["".join(rng.sample("abcdefghijkl", rng.randint(0, 5))) for _ in range(60)]
    shared = texts(order_demos(map_demos(drawn), order="shared"))
    for before, after in itertools.zip_longest(drawn, shared):
        assert sorted(before) == sorted(after)
    assert branches(shared) < 0.8 * branches(drawn)
