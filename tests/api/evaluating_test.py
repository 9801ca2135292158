"""Measuring a model on held-out items from a notebook."""

import os

import pytest
from tiny_run import HELDOUT

import isara_jax as isara

CONFIG = isara.EvaluationConfig(evaluation_tokens=4)


@pytest.fixture(scope="module")
def evaluation(model):
    return isara.evaluate(model, HELDOUT, config=CONFIG)


def test_every_item_is_answered_and_measured(evaluation, model):
    assert evaluation.model == model.source
    assert [a["question"] for a in evaluation.answers] == [
        item["question"] for item in HELDOUT
    ]
    nll = evaluation.metrics["nll"]
    assert 0 < nll["low"] <= nll["value"] <= nll["high"]
    assert f"nll={nll['value']:.3g}" in repr(evaluation)


def test_a_file_and_values_are_the_same(evaluation, model, tiny):
    values = [
        isara.HeldOut(
            question=item["question"],
            true=tuple(item["true"]),
            false=tuple(item["false"]),
        )
        for item in HELDOUT
    ]
    for given in (tiny.heldout, values):
        assert isara.evaluate(model, given, config=CONFIG) == evaluation


def test_no_file_is_left(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    isara.evaluate(model, HELDOUT[:1], config=CONFIG)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "heldout: there is no item to evaluate on"),
        ([HELDOUT[0], {}], "heldout, index 1: the field 'question' is missing"),
        (
            [HELDOUT[0], HELDOUT[0]],
            "heldout, index 1: the question of index 0 again: ",
        ),
        (
            [HELDOUT[0] | {"true": []}],
            "heldout, index 0: the field 'true' must be a list of one or more texts",
        ),
    ],
)
def test_what_is_no_item_is_refused_by_its_index(model, items, sentence):
    with pytest.raises(isara.InputError) as caught:
        isara.evaluate(model, items)
    assert str(caught.value).startswith(sentence)
