"""The way to a setting that fits, and where it ends."""

import importlib.util

import pytest
from fit_outcomes import outcome

from isara_jax.errors import InputError
from isara_jax.fit import nearest as module
from isara_jax.fit.machines.tpu_slices import slice_named
from isara_jax.fit.nearest import (
    changes,
    estimated_bytes,
    nearest,
    validate_model_axis,
)

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not for this platform"
)
BIG = {"train_batch": 16, "accumulation": 1, "remat": "none"}


def judged_by(holds):
    """Returns a compiler that says what a rule says, and the settings it was asked."""
    asked = []

    def prove(setting):
        asked.append(setting)
        return [outcome("fits" if holds(setting) else "does not fit")]

    return prove, asked


def test_changes_go_from_time_to_the_result(setting):
    fewer = {"remat": "full", "train_batch": "8", "accumulation": "2"}
    assert [flags for flags, _ in changes(setting(finetuning=BIG), slice=None)] == [
        {"remat": "full"},
        fewer,
        fewer
        | {"mesh_model": "2", "mesh_data": "-1"}
        | {"train_batch": "4", "accumulation": "4"},
        fewer | {"optimizer": "adafactor"},
        fewer | {"lora_rank": "16"},
    ]


@needs_libtpu
def test_a_larger_slice_takes_what_was_asked_for(setting):
    way = changes(setting(finetuning=BIG), slice=slice_named("v5e-128"))
    *_, (flags, candidate) = way
    assert flags == {"slice": "v5e-256", "mesh_data": "-1"}
    assert candidate.mesh.size == 256
    assert candidate.finetuning.remat == "none"


def test_a_step_keeps_its_examples(setting):
    asked = setting(finetuning={"train_batch": 12, "accumulation": 3})
    for _, candidate in changes(asked, slice=None):
        tuned = candidate.finetuning
        assert tuned.train_batch * tuned.accumulation >= 36
        assert candidate.mesh.size == 8


def test_masters_are_narrowed_where_the_model_is_narrow(setting):
    asked = setting(dtype="bfloat16")
    assert {"bfloat16"} == {
        flags["master_dtype"]
        for flags, _ in changes(asked, slice=None)
        if "master_dtype" in flags
    }


def test_the_first_that_is_proven_is_returned(setting):
    prove, asked = judged_by(lambda candidate: candidate.model == 2)
    found = nearest(setting(finetuning=BIG), slice=None, prove=prove)
    assert found.setting is asked[-1]
    assert [one.model for one in asked] == [1, 1, 2]
    assert found.flags == (
        *("--remat=full", "--train_batch=4", "--accumulation=4"),
        *("--mesh_model=2", "--mesh_data=-1"),
    )


def test_what_is_estimated_not_to_fit_is_not_compiled(setting):
    way = [one for _, one in changes(setting(finetuning=BIG), slice=None)]
    memory = min(map(estimated_bytes, way))
    prove, asked = judged_by(lambda candidate: True)
    found = nearest(setting(finetuning=BIG, memory=memory), slice=None, prove=prove)
    assert asked == [found.setting]
    assert estimated_bytes(found.setting) == memory


def test_the_search_ends(setting, monkeypatch):
    monkeypatch.setattr(module, "MOST_COMPILED", 2)
    prove, asked = judged_by(lambda candidate: False)
    assert nearest(setting(finetuning=BIG), slice=None, prove=prove) is None
    assert len(asked) == 2


def test_each_change_is_estimated_to_take_less(setting):
    asked = setting(finetuning=BIG | {"max_length": 128})
    estimates = [estimated_bytes(asked)]
    estimates += [estimated_bytes(one) for _, one in changes(asked, slice=None)]
    asked, full, fewer, wider, factored, _ = estimates
    assert asked > full > fewer > max(wider, factored)


@pytest.mark.parametrize(("model", "of"), [(3, "query heads, which are 4")])
def test_a_model_axis_that_does_not_divide_is_refused(setting, model, of):
    with pytest.raises(InputError, match=f"--mesh_model={model}: must divide the {of}"):
        validate_model_axis(setting(model=model))


def test_a_model_axis_divides_the_devices(setting):
    with pytest.raises(InputError, match="--mesh_model=4: must divide the devices"):
        validate_model_axis(setting(model=4, devices=6))
