"""Demonstrations of an answer: the nearest of each pool, nearest first."""

import jax
import numpy as np
import pytest
from scripted_engine import ScriptedEngine
from tiny_generation import tiny_generator, tiny_prompt_builder
from tiny_llama import tiny_llama
from tiny_run import tiny_tokenizer

from isara_jax.answers import answer_questions, nearest_demos
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.examples import Candidate, Example, Pool, Question
from isara_jax.generation import SampleKind
from isara_jax.retrieval.embed import Embedder
from isara_jax.retrieval.retriever import Retriever
from isara_jax.run.workdir import RoundFolder


class Dial(Embedder):
    """Turns a text, which is an angle in degrees, into the unit vector there."""

    def __init__(self):
        pass

    def embed(self, texts):
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def make_pool(round_index, angles):
    kind = "seed" if round_index == 0 else f"r{round_index:02d}"
    return Pool(
        round_index=round_index,
        examples=tuple(
            Example(question=str(angle), answer="so", origin=f"{kind}-{number:04d}")
            for number, angle in enumerate(angles)
        ),
    )


SEEDS = make_pool(0, [0, 90, 180, 270])
ROUND_1 = make_pool(1, [45, 135, 225])
ROUND_2 = make_pool(2, [10, 20])
EXACT = Retriever(Dial(), method="exact")


def demos_at(angle, pools, counts):
    queries = Dial().embed([str(angle)])
    (demos,) = nearest_demos(pools, queries, per_pool=counts, retriever=EXACT)
    return [demo.origin for demo in demos]


def test_the_nearest_come_first_in_the_order_of_the_pools():
    assert demos_at(100, [SEEDS, ROUND_1, ROUND_2], (3, 2, 1)) == [
        *("seed-0001", "seed-0002", "seed-0000"),
        *("r01-0001", "r01-0000"),
        "r02-0001",
    ]


def test_a_pool_gives_what_it_has():
    empty = make_pool(1, [])
    found = demos_at(80, [SEEDS, empty, ROUND_2], (9, 1, 1))
    assert found == [f"seed-{n:04d}" for n in (1, 0, 2, 3)] + ["r02-0001"]


def test_no_query_has_no_demos():
    none = np.zeros((0, 2), np.float32)
    assert nearest_demos([SEEDS], none, per_pool=(2,), retriever=EXACT) == []


def test_scann_finds_the_same():
    pytest.importorskip("scann", reason="ScaNN has no wheel for this platform")
    queries = Dial().embed(["100", "-20", "47"])
    found = [
        nearest_demos(
            [SEEDS, ROUND_1],
            queries,
            per_pool=(3, 1),
            retriever=Retriever(Dial(), method=method),
        )
        for method in ("scann", "exact")
    ]
    assert found[0] == found[1]


QUESTIONS = [
    Question(
        id=f"r02-{number:04d}", sample_index=number, text=text, demos=("seed-0003",)
    )
    for number, text in enumerate(["100", "", "330"])
]


@pytest.fixture
def answer(tmp_path, monkeypatch):
    def run(questions=QUESTIONS, *, demos=3, demo_tokens=2000):
        engine = ScriptedEngine("An answer to {}.".format)
        engine.take_over(monkeypatch)
        candidates = answer_questions(
            tiny_llama,
            questions,
            [SEEDS, ROUND_1],
            demos=demos,
            sampling_params=SamplingParams(max_new_tokens=8),
            prompt_builder=tiny_prompt_builder(demo_tokens=demo_tokens),
            generator=tiny_generator(slots=4),
            retriever=EXACT,
            folder=RoundFolder(tmp_path),
        )
        return engine, candidates

    return run


def test_a_candidate_tells_where_it_comes_from(answer):
    _, candidates = answer()
    assert candidates[0] == Candidate(
        id="r02-0000",
        question="100",
        answer="An answer to r02-0000.",
        answer_finish="eos",
        question_demos=("seed-0003",),
        answer_demos=("seed-0001", "seed-0002", "r01-0001"),
        nearest_seed="seed-0001",
        nearest_seed_similarity=0.9848,
    )


def test_the_prompt_holds_the_demonstrations_and_the_open_answer(answer):
    engine, _ = answer()
    text = tiny_tokenizer().hugging_face.decode(engine.prompts["r02-0000"].token_ids)
    asked = [part.partition(" ASSISTANT")[0] for part in text.split("USER: ")[1:]]
    assert asked == ["90", "180", "135", "100"]
    assert text.endswith("BEGINNING OF CONVERSATION: USER: 100 ASSISTANT:")


def test_an_empty_question_is_not_asked_and_keeps_its_place(answer):
    engine, candidates = answer()
    assert sorted(engine.prompts) == ["r02-0000", "r02-0002"]
    assert [candidate.id for candidate in candidates] == [q.id for q in QUESTIONS]
    assert (candidates[1].answer, candidates[1].nearest_seed) == ("", "")


def test_no_question_at_all(answer):
    engine, candidates = answer(QUESTIONS[1:2])
    assert engine.batches == [] and [c.answer for c in candidates] == [""]


def test_the_records_hold_what_was_asked_and_how_it_was_answered(answer, tmp_path):
    engine, _ = answer()
    first, _ = RoundFolder(tmp_path).answers.read()
    assert first == {
        "id": "r02-0000",
        "question": "100",
        "answer": "An answer to r02-0000.",
        "demos": ["seed-0001", "seed-0002", "r01-0001"],
        "nearest_seed": "seed-0001",
        "nearest_seed_similarity": 0.9848,
        "prompt_tokens": len(engine.prompts["r02-0000"].token_ids),
        "new_tokens": 2,
        "log_probability": -1.5,
        "finish": "eos",
        "parent": "M_1",
    }


def test_a_second_start_finds_the_same_answers(answer):
    _, candidates = answer()
    engine, found = answer()
    assert engine.batches == [] and found == candidates


def test_answers_are_drawn_with_the_key_of_their_round_and_step(answer):
    engine, _ = answer()
    key = jax.random.fold_in(
        jax.random.fold_in(jax.random.key(3), 2), SampleKind.ANSWER
    )
    assert engine.keys == [jax.random.key_data(key).tolist()]
