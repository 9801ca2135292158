"""A model in memory: what it tells, and what it is written as."""

import dataclasses

import jax
import numpy as np
import pytest

import isara_jax as isara
from isara_jax.models.checkpoints.load import named_tensors


def test_it_tells_what_it_is(model, tiny):
    assert model.source == str(tiny.model)
    assert model.dtype == "float32"
    assert model.parameters == sum(v.size for v in jax.tree.leaves(model.weights))
    assert repr(model).startswith(f"LoadedModel({str(tiny.model)!r}, Llama of 0.")
    assert "\n" not in repr(model)


def test_it_is_a_value(model):
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.source = "another"


def test_what_is_saved_loads_as_the_same_model(model, tmp_path):
    folder = model.save(tmp_path / "saved")
    again = isara.load_model(folder, dtype="float32", mesh_data=1)
    for (name, one), (other, two) in zip(
        named_tensors(model.weights), named_tensors(again.weights), strict=True
    ):
        assert name == other and np.array_equal(one, two)
    assert again.tokenizer.encode("the cat") == model.tokenizer.encode("the cat")


def test_a_folder_that_exists_is_left_alone(model, tmp_path):
    with pytest.raises(isara.InputError, match="exists already"):
        model.save(tmp_path)


def test_what_is_no_model_is_refused():
    with pytest.raises(isara.InputError, match="no such file or folder"):
        isara.load_model("nowhere")
