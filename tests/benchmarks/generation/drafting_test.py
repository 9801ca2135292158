"""A round's prompts and texts, as the package writes them, come back as workloads."""

import pytest
from tiny_run import write_tiny_run

from benchmarks.generation.drafting import drafting_workloads, read_run
from benchmarks.peers.engine import EngineSide
from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = write_tiny_run(tmp_path_factory.mktemp("tiny"))
    flags = run.flags(answer_max_new_tokens=12, answer_temperature=0.3, template="chat")
    (run.path / "run.flags").write_text("\n".join(flags))
    return run


@pytest.fixture(scope="module")
def config(run):
    return read_run(str(run.path / "run.flags"))


@pytest.fixture(scope="module")
def model(run):
    return load_model(
        open_model(run.model), dtype="float32", mesh=make_mesh(data=1, model=1)
    )


@pytest.fixture(scope="module")
def workloads(run, config, model):
    return drafting_workloads(config, model, source=open_model(run.model))


def test_the_rules_are_those_of_the_run(workloads, config):
    questions, answers = workloads
    assert questions.rules.sampling_params == config.question
    assert answers.rules.sampling_params == config.answer
    assert answers.rules.sampling_params.temperature == 0.3
    assert len(questions.prompts) == config.loop.candidates == 8


def test_the_answers_are_to_our_questions(workloads, run):
    questions, answers = workloads
    tokenizer = open_model(run.model).tokenizer
    asked = [tokenizer.decode(list(tokens)) for tokens in answers.prompts]
    shown = [tokenizer.decode(list(tokens)) for tokens in questions.prompts]
    # A question is to come where a user's turn has begun, an answer after that turn.
    assert all(text.endswith("user\n") for text in shown), shown[0]
    assert all(text.endswith("assistant\n") for text in asked), asked[0]
    assert len(set(asked)) == len(asked) == len(answers.rules.prompts) > 1


def test_the_texts_can_be_written_again(workloads, model):
    for workload in workloads:
        timing = EngineSide(model, slots=4).run(workload)
        assert sum(workload.new_tokens) <= timing.decoded_tokens


def test_a_text_ends_where_it_ended(workloads, config):
    questions, _ = workloads
    limit = config.question.max_new_tokens
    assert all(0 <= new <= limit for new in questions.new_tokens)


def test_a_quick_look_drafts_fewer(run):
    path = str(run.path / "run.flags")
    assert read_run(path, shrink=2).loop.candidates == 4
    assert read_run(path, shrink=99).loop.candidates == 2
