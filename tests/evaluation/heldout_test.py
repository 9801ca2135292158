"""What is asked of a model on the held-out items, and how the figures come together."""

import math

import pytest
from scripted_engine import Interrupted, ScriptedEngine
from tiny_generation import tiny_generator, tiny_prompt_builder
from tiny_llama import tiny_llama

from isara_jax.errors import InputError
from isara_jax.evaluation import heldout as module
from isara_jax.evaluation.heldout import EvaluationConfig, evaluate
from isara_jax.examples import HeldOut
from isara_jax.runtime.files.records import Records, read_json

ITEMS = (
    HeldOut(question="who sat ?", true=("The cat.", "A dog."), false=("Nobody has.",)),
    HeldOut(
        question="who ran ?", true=("The mouse ran.",), false=("The roof.", "No dog.")
    ),
)
# By reference: log p, in nats.
SCORES = {
    "The cat.": -4.0,
    "A dog.": -6.0,
    "Nobody has.": -5.0,
    "The mouse ran.": -9.0,
    "The roof.": -3.0,
    "No dog.": -7.0,
}
ANSWERS = {"heldout-0000": "The cat.", "heldout-0001": "The roof."}


@pytest.fixture
def prompt_builder():
    return tiny_prompt_builder(demo_tokens=0, context=128)


@pytest.fixture
def result(tmp_path):
    return tmp_path / "baselines" / "pretrained" / "evaluation.json"


@pytest.fixture
def run(monkeypatch, prompt_builder, result):
    """Evaluates with a scripted engine and known scores; returns both their calls."""

    def run(engine=None, *, model=tiny_llama, items=ITEMS):
        engine = engine or ScriptedEngine(ANSWERS.__getitem__)
        requests = []

        def loglikelihood(model, asked, *, slots, mesh, check):
            requests.extend(asked)
            for item in asked:
                texts = [
                    prompt_builder.tokenizer.decode(tokens)
                    for tokens in item.continuations
                ]
                yield tuple(SCORES[text] for text in texts)

        engine.take_over(monkeypatch)
        monkeypatch.setattr(module, "loglikelihood", loglikelihood)
        evaluate(
            model,
            items,
            name="pretrained",
            config=EvaluationConfig(evaluation_tokens=9),
            prompt_builder=prompt_builder,
            generator=tiny_generator(slots=1, context=128),
            result=result,
        )
        return engine, requests

    return run


def test_the_figures_are_of_the_references_and_the_answers(run, result, prompt_builder):
    run()
    found = read_json(result)
    assert (found["model"], found["items"]) == ("pretrained", 2)
    true = ("The cat.", "A dog.", "The mouse ran.")
    tokens = sum(len(prompt_builder.completion_ids(text)) for text in true)
    assert found["metrics"]["nll"]["value"] == pytest.approx((4 + 6 + 9) / tokens)
    assert found["metrics"]["mc1"]["value"] == 0.5
    one = (math.exp(-4) + math.exp(-6)) / sum(map(math.exp, (-4, -6, -5)))
    other = math.exp(-9) / sum(map(math.exp, (-9, -3, -7)))
    assert found["metrics"]["mc2"]["value"] == pytest.approx((one + other) / 2)
    first, second = found["answers"]
    assert first["question"] == "who sat ?" and first["best_reference"] == "The cat."
    assert (first["answer"], second["answer"]) == ("The cat.", "The roof.")
    assert first["rouge_l_difference"] == 100
    assert second["rouge_l_difference"] == pytest.approx(40 - 100)


def test_the_model_is_asked_without_demonstrations_and_greedily(run, prompt_builder):
    engine, _ = run()
    prompt = engine.prompts["heldout-0001"]
    text = prompt_builder.tokenizer.hugging_face.decode(prompt.token_ids)
    assert text == "BEGINNING OF CONVERSATION: USER: who ran ? ASSISTANT:"
    (sampling_params,) = set(engine.decodings)
    assert sampling_params.max_new_tokens == 9
    assert sampling_params.static.greedy
    assert (sampling_params.repetition_penalty, sampling_params.no_repeat_ngram) == (
        1,
        0,
    )


def test_references_are_scored_as_they_would_be_trained(run, prompt_builder):
    _, requests = run()
    assert [len(item.continuations) for item in requests] == [3, 3]
    assert requests[0].continuations[1] == prompt_builder.completion_ids("A dog.")
    assert requests[0].continuations[1][-1] == prompt_builder.tokenizer.eos[0]
    text = prompt_builder.tokenizer.hugging_face.decode(requests[0].prompt)
    assert text == "BEGINNING OF CONVERSATION: USER: who sat ? ASSISTANT:"


def no_model():
    raise AssertionError("the model was asked for")


def test_what_is_evaluated_is_not_evaluated_again(run, result):
    run()
    before = result.read_bytes()
    engine, requests = run(model=no_model)
    assert (engine.batches, requests, result.read_bytes()) == ([], [], before)


def test_no_item_is_no_evaluation(run, result):
    run(model=no_model, items=())
    assert not result.exists()


def test_a_stopped_evaluation_keeps_its_answers(run, result):
    with pytest.raises(Interrupted):
        run(ScriptedEngine(ANSWERS.__getitem__, most_batches=1))
    assert not result.exists()
    assert len(Records(result.with_name("heldout_answers.jsonl")).read()) == 1
    engine, _ = run()
    assert len(engine.batches) == 1 and result.exists()


def test_at_least_a_token_is_asked_for():
    with pytest.raises(InputError, match="evaluation_tokens=0: must be at least 1"):
        EvaluationConfig(evaluation_tokens=0)
