"""Prompts in token ids, keys, and a step that is picked up where it was torn."""

import functools
import itertools
import json
from dataclasses import replace

import jax
import pytest
from scripted_engine import Interrupted, ScriptedEngine
from tiny_llama import tiny_llama
from tiny_run import tiny_tokenizer
from tiny_sampler import tiny_sampler

from isara_jax.engine.request import Request
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.examples import Example
from isara_jax.generation import OpenTurn, Step, sample_into, sampled
from isara_jax.runtime.files.records import Records
from isara_jax.runtime.tokenizer import Tokenizer

DEMO = Example(question="is it true ?", answer="The cat sat.", origin="seed-0003")
DECODING = SamplingParams(max_new_tokens=8)


make_sampler = functools.partial(tiny_sampler, demo_tokens=500, context=512)


def written(sampler, demos, opening, *, new_tokens=8):
    turn = OpenTurn(id="r01-0004", number=4, opening=opening, demos=demos)
    ((prompt, used),) = sampler.prompts([turn], new_tokens=new_tokens)
    return prompt, used


def test_a_prompt_is_its_demonstrations_and_the_open_turn():
    sampler = make_sampler()
    opening = sampler.template.open_question()
    prompt, used = written(sampler, [DEMO, DEMO], opening)
    text = sampler.tokenizer.hugging_face.decode(prompt.token_ids)
    assert text == sampler.template.demonstration(DEMO) * 2 + opening
    assert (prompt.id, prompt.sample_index) == ("r01-0004", 4)
    assert used == ("seed-0003", "seed-0003")


def test_demonstrations_that_do_not_fit_are_not_named():
    sampler = make_sampler(demo_tokens=0)
    prompt, used = written(sampler, [DEMO], "who")
    assert used == () and list(prompt.token_ids) == sampler.tokenizer.encode("who")


def test_demonstrations_leave_room_for_the_open_turn_and_what_is_to_come():
    sampler = make_sampler(context=300)
    opening = sampler.template.open_answer("who sat on the mat ?")
    for new_tokens in range(0, 300, 11):
        prompt, used = written(sampler, [DEMO] * 9, opening, new_tokens=new_tokens)
        text = sampler.tokenizer.hugging_face.decode(prompt.token_ids)
        assert text.endswith(opening)
        assert not used or len(prompt.token_ids) + new_tokens <= sampler.context
    assert used == ()
    prompt, used = written(sampler, [DEMO] * 9, opening, new_tokens=1)
    one_more = len(sampler.tokenizer.encode(sampler.template.demonstration(DEMO)))
    assert len(prompt.token_ids) + one_more + 1 > sampler.context


def test_demonstrations_are_ordered_after_those_that_do_not_fit_are_left_out():
    mat = Example(question="Where is the mat ?", answer="Here.", origin="seed-0005")
    hat = Example(question="Whose hat ?", answer="Mine.", origin="seed-0006")
    sampler = replace(make_sampler(), demo_order="shared")
    cost = [
        len(sampler.tokenizer.encode(sampler.template.demonstration(demo)))
        for demo in (DEMO, mat, hat)
    ]
    sampler = replace(sampler, demo_tokens=sum(cost) - 1)
    turns = [
        OpenTurn(id="a", number=0, opening="who", demos=[DEMO, mat, hat]),
        OpenTurn(id="b", number=1, opening="who", demos=[hat, mat]),
    ]
    first, second = [used for _, used in sampler.prompts(turns, new_tokens=8)]
    assert first == ("seed-0005", "seed-0003")
    assert second == ("seed-0005", "seed-0006")


@pytest.mark.parametrize("opening", ["who", "<pad>who"])
def test_a_prompt_begins_with_one_bos(opening):
    plain = tiny_tokenizer()
    bos = plain.encode("<pad>")
    tokenizer = Tokenizer(hugging_face=plain.hugging_face, eos=(2,), bos=tuple(bos))
    prompt = make_sampler(tokenizer).prompt(opening, id="", number=0)
    assert list(prompt.token_ids) == bos + plain.encode("who")


@pytest.mark.parametrize(("template", "lead"), [("paper", ""), ("paper_spaced", " ")])
def test_an_answer_ends_with_eos(template, lead):
    plain = tiny_tokenizer()
    tokenizer = Tokenizer(hugging_face=plain.hugging_face, eos=(2, 9), bos=())
    tokens = make_sampler(tokenizer, template=template).answer_tokens("The cat sat.")
    assert list(tokens) == [*plain.encode(f"{lead}The cat sat."), 2]


def test_every_round_and_step_has_its_own_key():
    sampler = make_sampler()
    keys = [
        str(jax.random.key_data(sampler.key(round_index=round_index, step=step)))
        for round_index, step in itertools.product(range(1, 4), Step)
    ]
    assert len(set(keys)) == len(keys) == 9
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 2), 1)
    assert sampler.key(round_index=2, step=Step.ANSWERS) == key


PROMPTS = [
    Request(id=f"r01-{n:04d}", sample_index=n, token_ids=(1,) * (9 - n))
    for n in range(5)
]


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "questions.jsonl")


@pytest.fixture
def sample(records, monkeypatch):
    """Runs the step with the engine, and returns what the step does."""

    def run(engine, **changes):
        engine.take_over(monkeypatch)
        return sample_into(
            records,
            changes.pop("prompts", PROMPTS),
            model=changes.pop("model", tiny_llama),
            sampler=make_sampler(**changes),
            sampling_params=DECODING,
            round_index=1,
            step=Step.QUESTIONS,
            stage="round 1: questions",
            describe=lambda completion: {
                "id": completion.id,
                "question": completion.text,
                **sampled(completion, parent="M_0"),
            },
        )

    return run


def test_records_are_returned_in_order_of_id(sample, records):
    engine = ScriptedEngine()
    result = sample(engine)
    assert [record["id"] for record in result] == [prompt.id for prompt in PROMPTS]
    assert result[2] == {
        "id": "r01-0002",
        "question": "What is r01-0002 then, my friend?",
        "prompt_tokens": 7,
        "new_tokens": 2,
        "log_probability": -1.5,
        "finish": "eos",
        "parent": "M_0",
    }
    # What ends together is written together, and sorted when all is there.
    assert [[p.sample_index for p in batch] for batch in engine.batches] == [
        [4, 3],
        [2, 1],
        [0],
    ]
    assert records.read() == result


def test_a_step_that_is_done_needs_no_model(sample, records):
    result = sample(ScriptedEngine())
    before = records.path.read_bytes()

    def no_model():
        raise AssertionError("the model was asked for")

    assert sample(ScriptedEngine(most_batches=0), model=no_model) == result
    assert records.path.read_bytes() == before


def test_no_prompt_is_no_record(sample, records):
    assert sample(ScriptedEngine(most_batches=0), prompts=[]) == []
    assert not records.path.exists()


@pytest.mark.parametrize("whole_batches", [0, 1, 2])
@pytest.mark.parametrize(
    "left", ["nothing", "a record", "a torn line", "another run's"]
)
def test_a_stopped_step_goes_on_to_the_same_bytes(sample, records, whole_batches, left):
    undisturbed = ScriptedEngine()
    sample(undisturbed)
    expected = records.path.read_bytes()
    records.path.unlink()
    with pytest.raises(Interrupted):
        sample(ScriptedEngine(most_batches=whole_batches))
    torn = {
        "nothing": b"",
        "a record": next(line for line in expected.splitlines(keepends=True)),
        "a torn line": expected[:25],
        "another run's": json.dumps({"id": "r09-0009"}).encode() + b"\n",
    }[left]
    before = records.path.read_bytes() if records.path.exists() else b""
    kept = {p.id for batch in undisturbed.batches[:whole_batches] for p in batch}
    kept |= {"r01-0000"} if left == "a record" else set()
    records.path.write_bytes(before + torn)

    resumed = ScriptedEngine()
    sample(resumed)
    assert records.path.read_bytes() == expected
    assert resumed.prompts.keys() == {p.id for p in PROMPTS} - kept
    assert set(map(str, resumed.keys)) <= set(map(str, undisturbed.keys))


def test_a_stop_is_asked_about_in_the_engine(sample, records):
    def stop():
        raise Interrupted

    with pytest.raises(Interrupted):
        sample(ScriptedEngine(), check=stop)
    assert records.read() == []
