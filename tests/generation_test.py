"""Keys, records, and a step that resumes where it was stopped."""

import itertools
import json

import jax
import pytest
from scripted_engine import Interrupted, ScriptedEngine
from tiny_generation import tiny_generator
from tiny_llama import tiny_llama

from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.generation import SampleKind, completion_fields, generate_to_records
from isara_jax.prompts.builder import Prompt
from isara_jax.runtime.files.records import Records

DECODING = SamplingParams(max_new_tokens=8)


def test_engines_of_a_run_ask_about_each_program_once():
    generator = tiny_generator()
    one, other = (generator.engine(tiny_llama(seed=seed)) for seed in (0, 1))
    assert one.compaction_parity is other.compaction_parity
    assert tiny_generator().compaction_parity is not one.compaction_parity


def test_every_round_and_kind_of_sample_has_its_own_key():
    generator = tiny_generator()
    keys = [
        str(jax.random.key_data(generator.key(round_index=round_index, kind=kind)))
        for round_index, kind in itertools.product(range(1, 4), SampleKind)
    ]
    assert len(set(keys)) == len(keys) == 9
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 2), 1)
    assert generator.key(round_index=2, kind=SampleKind.ANSWER) == key


PROMPTS = [
    Prompt(id=f"r01-{n:04d}", sample_index=n, token_ids=(1,) * (9 - n))
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
        return generate_to_records(
            records,
            changes.pop("prompts", PROMPTS),
            model=changes.pop("model", tiny_llama),
            generator=tiny_generator(**{"context": 512} | changes),
            sampling_params=DECODING,
            round_index=1,
            kind=SampleKind.QUESTION,
            stage="round 1: questions",
            to_record=lambda completion: {
                "id": completion.id,
                "question": completion.text,
                **completion_fields(completion, parent="M_0"),
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
