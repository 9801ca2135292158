"""Prompts in token ids, keys, and a step that is picked up where it was torn."""

import itertools
import json

import jax
import pytest
from scripted_engine import Interrupted, ScriptedEngine
from tiny_llama import tiny_llama
from tiny_run import tiny_tokenizer

from isara_jax import sampler as module
from isara_jax.engine.batches import Prompt
from isara_jax.engine.decoding import Decoding
from isara_jax.examples import Example
from isara_jax.prompts import make_template
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.tokenizer import Tokenizer
from isara_jax.sampler import Sampler, Step, sample_into, sampled
from isara_jax.workdir import Records

DEMO = Example(question="is it true ?", answer="The cat sat.", origin="seed-0003")
DECODING = Decoding(max_new_tokens=8)


def make_sampler(
    tokenizer=None, *, template="paper", demo_tokens=500, context=512, check=None
):
    tokenizer = tokenizer or tiny_tokenizer()
    return Sampler(
        tokenizer=tokenizer,
        template=make_template(template, render=tokenizer.render_chat),
        mesh=make_mesh(data=1, model=1),
        seed=3,
        slots=2,
        demo_tokens=demo_tokens,
        context=context,
        check=check or (lambda: None),
    )


def test_a_prompt_is_its_demonstrations_and_the_open_turn():
    sampler = make_sampler()
    opening = sampler.template.open_question()
    prompt, used = sampler.prompt(
        [DEMO, DEMO], opening, id="r01-0004", number=4, new_tokens=8
    )
    text = sampler.tokenizer.hugging_face.decode(prompt.tokens)
    assert text == sampler.template.demonstration(DEMO) * 2 + opening
    assert (prompt.id, prompt.number) == ("r01-0004", 4)
    assert used == ("seed-0003", "seed-0003")


def test_demonstrations_that_do_not_fit_are_not_named():
    sampler = make_sampler(demo_tokens=0)
    prompt, used = sampler.prompt([DEMO], "who", id="r", number=4, new_tokens=8)
    assert used == () and list(prompt.tokens) == sampler.tokenizer.encode("who")


def test_demonstrations_leave_room_for_the_open_turn_and_what_is_to_come():
    sampler = make_sampler(context=300)
    opening = sampler.template.open_answer("who sat on the mat ?")
    for new_tokens in range(0, 300, 11):
        prompt, used = sampler.prompt(
            [DEMO] * 9, opening, id="r", number=0, new_tokens=new_tokens
        )
        text = sampler.tokenizer.hugging_face.decode(prompt.tokens)
        assert text.endswith(opening)
        assert not used or len(prompt.tokens) + new_tokens <= sampler.context
    assert used == ()
    prompt, used = sampler.prompt([DEMO] * 9, opening, id="r", number=0, new_tokens=1)
    one_more = len(sampler.tokenizer.encode(sampler.template.demonstration(DEMO)))
    assert len(prompt.tokens) + one_more + 1 > sampler.context


@pytest.mark.parametrize("opening", ["who", "<pad>who"])
def test_a_prompt_begins_with_one_bos(opening):
    plain = tiny_tokenizer()
    bos = plain.encode("<pad>")
    tokenizer = Tokenizer(hugging_face=plain.hugging_face, eos=(2,), bos=tuple(bos))
    prompt, _ = make_sampler(tokenizer).prompt(
        [], opening, id="", number=0, new_tokens=8
    )
    assert list(prompt.tokens) == bos + plain.encode("who")


@pytest.mark.parametrize(("template", "lead"), [("paper", ""), ("paper_spaced", " ")])
def test_an_answer_ends_with_eos(template, lead):
    plain = tiny_tokenizer()
    tokenizer = Tokenizer(hugging_face=plain.hugging_face, eos=(2, 9), bos=())
    tokens = make_sampler(tokenizer, template=template).answer_tokens("The cat sat.")
    assert list(tokens) == [*plain.encode(f"{lead}The cat sat."), 2]


def test_every_round_and_step_has_its_own_key():
    sampler = make_sampler()
    keys = [
        str(jax.random.key_data(sampler.key(round=round, step=step)))
        for round, step in itertools.product(range(1, 4), Step)
    ]
    assert len(set(keys)) == len(keys) == 9
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 2), 1)
    assert sampler.key(round=2, step=Step.ANSWERS) == key


PROMPTS = [Prompt(id=f"r01-{n:04d}", number=n, tokens=(1,) * (9 - n)) for n in range(5)]


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "questions.jsonl")


@pytest.fixture
def sample(records, monkeypatch):
    """Runs the step with the engine, and returns what the step does."""

    def run(engine, **changes):
        monkeypatch.setattr(module, "generate_batch", engine)
        return sample_into(
            records,
            changes.pop("prompts", PROMPTS),
            model=changes.pop("model", tiny_llama),
            sampler=make_sampler(**changes),
            decoding=DECODING,
            round=1,
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
    # Written batch by batch, the shortest prompts first.
    assert [len(batch.prompts) for batch in engine.batches] == [2, 2, 1]
    assert records.read()[0]["id"] == "r01-0004"


def test_every_beam_takes_a_slot():
    sampler = make_sampler()
    for beams, rows in ((1, [2, 2, 1]), (2, [1] * 5), (3, [1] * 5)):
        batches = sampler.batches(PROMPTS, Decoding(max_new_tokens=8, beams=beams))
        assert [len(batch.prompts) for batch in batches] == rows


def test_beams_are_searched_by_their_own_decoder(monkeypatch):
    one, several = ScriptedEngine(), ScriptedEngine()
    monkeypatch.setattr(module, "generate_batch", one)
    monkeypatch.setattr(module, "beam_batch", several)
    sampler = make_sampler()
    for beams in (1, 4, 1):
        decoding = Decoding(max_new_tokens=8, beams=beams)
        (batch,) = sampler.batches(PROMPTS[:1], decoding)
        key = sampler.key(round=1, step=Step.ANSWERS)
        sampler.continue_batch(tiny_llama(), batch, decoding=decoding, key=key)
    assert (len(one.batches), len(several.batches)) == (2, 1)


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
    further = expected.splitlines(keepends=True)[2 * whole_batches]
    torn = {
        "nothing": b"",
        "a record": further if whole_batches < 2 else b"",
        "a torn line": further[:25],
        "another run's": json.dumps({"id": "r09-0009"}).encode() + b"\n",
    }[left]
    before = records.path.read_bytes() if records.path.exists() else b""
    records.path.write_bytes(before + torn)

    resumed = ScriptedEngine()
    sample(resumed)
    assert records.path.read_bytes() == expected
    assert resumed.batches == undisturbed.batches[whole_batches:]
    assert set(map(str, resumed.keys)) == set(map(str, undisturbed.keys))


def test_a_stop_is_asked_about_in_the_engine(sample, records):
    def stop():
        raise Interrupted

    with pytest.raises(Interrupted):
        sample(ScriptedEngine(), check=stop)
    assert records.read() == []
