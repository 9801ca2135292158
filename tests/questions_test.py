"""Random demonstrations: from every pool, the paper's counts, the same when resumed."""

import itertools

import numpy as np
import pytest
from scripted_engine import ScriptedEngine
from tiny_generation import tiny_generator, tiny_prompt_builder
from tiny_llama import tiny_llama
from tiny_run import tiny_tokenizer

from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.examples import Example, Pool
from isara_jax.prompts.templates import make_template
from isara_jax.questions import draft_questions, draw_demos
from isara_jax.run.workdir import RoundFolder

RNG = np.random.default_rng


def make_pool(round_index, size):
    kind = "seed" if round_index == 0 else f"r{round_index:02d}"
    return Pool(
        round_index=round_index,
        examples=tuple(
            Example(question=f"q{n}", answer=f"a{n}", origin=f"{kind}-{n:04d}")
            for n in range(size)
        ),
    )


POOLS = [make_pool(0, 12), make_pool(1, 4), make_pool(2, 3)]


@pytest.fixture
def draft(tmp_path, monkeypatch):
    """Runs step (a) in the named folder; returns the engine and the questions."""

    def run(
        pools,
        *,
        seed=3,
        demos=4,
        demo_tokens=2000,
        questions_per_context=1,
        name="round",
    ):
        engine = ScriptedEngine()
        engine.take_over(monkeypatch)
        questions = draft_questions(
            tiny_llama,
            pools,
            candidates=5,
            demos=demos,
            questions_per_context=questions_per_context,
            sampling_params=SamplingParams(max_new_tokens=8),
            prompt_builder=tiny_prompt_builder(demo_tokens=demo_tokens),
            generator=tiny_generator(seed=seed),
            folder=RoundFolder(tmp_path / name),
        )
        return engine, questions

    return run


def demos_of(questions):
    return [question.demos for question in questions]


def test_demos_come_from_every_pool_in_its_order_and_number(draft):
    _, questions = draft(POOLS)
    assert len(questions) == 5
    for question in questions:
        kinds = [origin.partition("-")[0] for origin in question.demos]
        assert kinds == ["seed", "seed", "r01", "r02"]
        assert len(set(question.demos)) == 4


def test_every_question_and_round_and_seed_draws_its_own(draft):
    first = demos_of(draft(POOLS[:1])[1])
    assert len(set(first)) == 5
    other_seed = demos_of(draft(POOLS[:1], seed=4, name="seed")[1])
    other_round = demos_of(draft(POOLS[:2], demos=5, name="round 2")[1])
    assert not set(first) & set(other_seed)
    assert not set(first) & {demos[:4] for demos in other_round}


def test_the_draw_is_that_of_seed_round_and_number(draft):
    _, questions = draft(POOLS[:2])
    for number, question in enumerate(questions):
        drawn = draw_demos(POOLS[:2], (3, 1), rng=RNG([3, 2, 0, number]))
        assert question.demos == tuple(demo.origin for demo in drawn)


def test_questions_of_one_context_have_its_demonstrations(draft):
    engine, questions = draft(POOLS[:1], questions_per_context=2)
    first, second, third = (
        tuple(
            demo.origin
            for demo in draw_demos(POOLS[:1], (4,), rng=RNG([3, 1, 0, number]))
        )
        for number in range(3)
    )
    assert demos_of(questions) == [first, first, second, second, third]
    prompts = [engine.prompts[question.id].token_ids for question in questions]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]


def test_a_second_start_finds_the_same_questions(draft):
    engine, questions = draft(POOLS)
    again, found = draft(POOLS)
    assert (len(engine.batches), again.batches) == (3, [])
    assert found == questions


def test_a_question_is_what_was_written_after_an_open_turn(draft):
    engine, questions = draft(POOLS[:1])
    assert [q.id for q in questions] == [f"r01-{n:04d}" for n in range(5)]
    assert [q.sample_index for q in questions] == [*range(5)]
    assert questions[2].text == "What is r01-0002 then, my friend?"
    text = tiny_tokenizer().hugging_face.decode(engine.prompts["r01-0002"].token_ids)
    first = questions[2].demos[0].removeprefix("seed-").lstrip("0") or "0"
    assert text.startswith(f"BEGINNING OF CONVERSATION: USER: q{first} ASSISTANT:")
    assert text.count("END OF CONVERSATION") == 4
    assert text.endswith("END OF CONVERSATION\n\nBEGINNING OF CONVERSATION: USER:")


def test_only_the_demonstrations_that_fit_are_recorded(draft):
    one = len(tiny_tokenizer().encode(_demonstration()))
    engine, questions = draft(POOLS[:1], demo_tokens=2 * one + 5)
    assert {len(demos) for demos in demos_of(questions)} == {2}
    text = tiny_tokenizer().hugging_face.decode(engine.prompts["r01-0000"].token_ids)
    assert text.count("END OF CONVERSATION") == 2


def _demonstration():
    return make_template("paper", render=tiny_tokenizer().render_chat).demonstration(
        POOLS[0].examples[0]
    )


@pytest.mark.parametrize("t", [1, 2, 3])
def test_the_records_name_the_model_that_wrote_them(draft, tmp_path, t):
    draft(POOLS[:t])
    records = RoundFolder(tmp_path / "round").questions.read()
    assert {record["parent"] for record in records} == {f"M_{t - 1}"}


def test_a_pool_gives_what_it_has():
    drawn = draw_demos([make_pool(0, 2), make_pool(1, 0)], (3, 1), rng=RNG(0))
    assert sorted(demo.origin for demo in drawn) == ["seed-0000", "seed-0001"]


def test_demos_are_drawn_evenly():
    drawn = [draw_demos(POOLS[2:], (1,), rng=RNG([n]))[0].origin for n in range(600)]
    counts = {
        name: len(list(group)) for name, group in itertools.groupby(sorted(drawn))
    }
    assert len(counts) == 3 and min(counts.values()) > 160
