"""Aligning from a notebook: as the command does it, and without files."""

import os

import jax
import numpy as np
import pytest
from tiny_run import HELDOUT, SEEDS, SHORT, main_in_process

import isara_jax as isara

PAIRS = [(seed["question"], seed["answer"]) for seed in SEEDS]


@pytest.fixture(scope="module")
def config(tiny):
    """What the flags of a short tiny run say."""
    rules = {"max_new_tokens": 24, "no_repeat_ngram": 10}
    return isara.AlignConfig(
        loop=isara.LoopConfig(rounds=1, candidates=4, demos=3),
        question=isara.SamplingParams(**rules, repetition_penalty=1.05),
        answer=isara.SamplingParams(**rules, repetition_penalty=1.2),
        finetuning=isara.FinetuneConfig(
            learning_rate=1e-3, train_batch=4, accumulation=2
        ),
        evaluation=isara.EvaluationConfig(evaluation_tokens=12, baselines=False),
        retrieval=isara.RetrievalConfig(encoder=str(tiny.encoder)),
        engine=isara.EngineConfig(max_slots=4),
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("aligned") / "run"


@pytest.fixture(scope="module")
def aligned(model, config, workdir):
    return isara.align(PAIRS, model, config, heldout=HELDOUT, workdir=workdir)


def arrays(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.weights)]


def same(one, other):
    return all(map(np.array_equal, arrays(one), arrays(other)))


def test_a_run_s_folder_is_what_the_command_writes(aligned, workdir, tiny):
    assert aligned.workdir == workdir
    assert main_in_process(tiny.flags(**SHORT)) == 0
    for name in ("kept.jsonl", "rejected.jsonl", "metrics.jsonl", "evaluation.json"):
        file = f"round_01/{name}"
        assert (workdir / file).read_bytes() == (tiny.workdir / file).read_bytes()
    names = {path.name for path in tiny.workdir.iterdir()}
    assert {path.name for path in workdir.iterdir()} == names


def test_the_model_is_the_one_that_the_folder_holds(aligned, model, workdir):
    released = isara.load_model(workdir / "model", dtype="float32", mesh_data=1)
    assert same(aligned.model, released) and not same(aligned.model, model)


def test_what_was_made_is_told(aligned):
    (evaluation,) = aligned.evaluations.values()
    assert evaluation.model == "ISARA round 1" and len(evaluation.answers) == 6
    assert "ISARA round 1" in aligned.summary
    assert all(example.origin.startswith("r01-") for example in aligned.kept)


def test_the_same_call_again_returns_the_same(aligned, model, config, workdir):
    again = isara.align(PAIRS, model, config, heldout=HELDOUT, workdir=workdir)
    assert same(again.model, aligned.model)
    assert (again.kept, again.evaluations) == (aligned.kept, aligned.evaluations)


def test_other_seeds_do_not_go_on_in_the_folder(aligned, model, config, workdir):
    with pytest.raises(isara.InputError, match="the hash seeds="):
        isara.align(PAIRS[:4], model, config, heldout=HELDOUT, workdir=workdir)


def test_without_a_folder_no_file_is_left(
    aligned, model, config, tmp_path, monkeypatch
):
    before = arrays(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = isara.align(PAIRS, model, config)
    assert os.listdir(tmp_path) == [] and result.workdir is None
    assert result.evaluations == {} and same(result.model, aligned.model)
    assert all(map(np.array_equal, before, arrays(model)))


def test_the_defaults_are_the_flags_own():
    config = isara.AlignConfig()
    assert config.question.beams == 5 and config.question.length_penalty == 2.0
    assert config.answer.max_new_tokens == 100 and config.loop.candidates == 512


def test_too_few_seeds_are_refused(model, config):
    with pytest.raises(isara.InputError, match="seeds: 2 seeds, but a prompt of this"):
        isara.align(PAIRS[:2], model, config)
