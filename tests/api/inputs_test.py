"""Plain values as seeds, examples and held-out items."""

import jaxtyping
import pytest
from tiny_run import SEEDS

from isara_jax.api.inputs import examples_of, heldout_of, seeds_of
from isara_jax.errors import InputError
from isara_jax.examples import Example, Pool


@pytest.fixture
def any_values():
    """Lets values of wrong types in, as they come where no types are checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refusal(read, *arguments, **keywords):
    with pytest.raises(InputError) as caught:
        read(*arguments, **keywords)
    return str(caught.value)


def test_seeds_are_numbered_whatever_they_were():
    pairs = [
        ("Why?", " Because. "),
        {"question": "How?", "answer": "So.", "source": "me"},
        Example(question="When?", answer="Now.", origin="r01-0003"),
    ]
    assert seeds_of(pairs, at_least=3) == Pool(
        round_index=0,
        examples=(
            Example(question="Why?", answer="Because.", origin="seed-0000"),
            Example(question="How?", answer="So.", origin="seed-0001"),
            Example(question="When?", answer="Now.", origin="seed-0002"),
        ),
    )


def test_examples_keep_their_origin():
    pairs = [("Why?", "So."), Example(question="q", answer="a", origin="r01-0003")]
    assert [e.origin for e in examples_of(pairs)] == ["example-0000", "r01-0003"]


def test_files_are_read(tiny):
    assert len(seeds_of(tiny.seeds, at_least=1)) == len(SEEDS)
    assert [e.question for e in examples_of(str(tiny.seeds))] == [
        seed["question"] for seed in SEEDS
    ]
    assert len(heldout_of(tiny.heldout)) == 6


def test_too_few_seeds_are_refused():
    assert refusal(seeds_of, [("a", "b")], at_least=2).startswith("seeds: 1 seeds, but")


def test_a_question_that_stands_twice_is_no_seed_but_an_example():
    twice = [("Why?", "a"), ("why?", "b")]
    assert refusal(seeds_of, twice, at_least=1) == (
        "seeds, index 1: the question of index 0 again: 'why?'"
    )
    assert len(examples_of(twice)) == 2


@pytest.mark.parametrize("value", [("c",), ("a", "b", "c"), "question", 3, None])
def test_what_is_no_pair_is_refused(any_values, value):
    found = refusal(examples_of, [("a", "b"), value])
    assert found.startswith("examples, index 1: must be (question, answer), a mapping")


def test_what_is_no_held_out_item_is_refused(any_values):
    found = refusal(heldout_of, [("a", "b")])
    assert found.startswith("heldout, index 0: must be a mapping of 'question', 'true'")
