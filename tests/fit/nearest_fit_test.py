"""The way to a setting that fits, and where it ends."""

import importlib.util

import pytest
from fit_outcomes import outcome

from isara_jax.errors import InputError
from isara_jax.fit import nearest_fit as module
from isara_jax.fit.machines.tpu_slices import slice_named
from isara_jax.fit.nearest_fit import (
    candidates,
    estimated_bytes,
    find_nearest_fit,
    validate_model_axis,
)

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not for this platform"
)
BIG = {"train_batch": 16, "accumulation": 1, "remat": "none"}


def judged_by(holds):
    """Returns a compiler that says what a rule says, and the settings it was asked."""
    asked = []

    def compile(fit_request):
        asked.append(fit_request)
        return [outcome("fits" if holds(fit_request) else "does not fit")]

    return compile, asked


def test_changes_go_from_time_to_the_result(fit_request):
    fewer = {"remat": "full", "train_batch": "8", "accumulation": "2"}
    assert [
        flags for flags, _ in candidates(fit_request(finetuning=BIG), slice=None)
    ] == [
        {"remat": "full"},
        fewer,
        fewer
        | {"mesh_model": "2", "mesh_data": "-1"}
        | {"train_batch": "4", "accumulation": "4"},
        fewer | {"optimizer": "adafactor"},
        fewer | {"lora_rank": "16"},
    ]


@needs_libtpu
def test_a_larger_slice_takes_what_was_asked_for(fit_request):
    way = candidates(fit_request(finetuning=BIG), slice=slice_named("v5e-128"))
    *_, (flags, candidate) = way
    assert flags == {"slice": "v5e-256", "mesh_data": "-1"}
    assert candidate.mesh.size == 256
    assert candidate.finetuning.remat == "none"


def test_a_step_keeps_its_examples(fit_request):
    asked = fit_request(finetuning={"train_batch": 12, "accumulation": 3})
    for _, candidate in candidates(asked, slice=None):
        tuned = candidate.finetuning
        assert tuned.train_batch * tuned.accumulation >= 36
        assert candidate.mesh.size == 8


def test_masters_are_narrowed_where_the_model_is_narrow(fit_request):
    asked = fit_request(dtype="bfloat16")
    assert {"bfloat16"} == {
        flags["master_dtype"]
        for flags, _ in candidates(asked, slice=None)
        if "master_dtype" in flags
    }


def test_the_first_that_is_proven_is_returned(fit_request):
    compile, asked = judged_by(lambda candidate: candidate.mesh_model == 2)
    found = find_nearest_fit(fit_request(finetuning=BIG), slice=None, compile=compile)
    assert found.request is asked[-1]
    assert [one.mesh_model for one in asked] == [1, 1, 2]
    assert found.changes == (
        {"remat": "full", "train_batch": "4", "accumulation": "4"}
        | {"mesh_model": "2", "mesh_data": "-1"}
    )


def test_what_is_estimated_not_to_fit_is_not_compiled(fit_request):
    way = [one for _, one in candidates(fit_request(finetuning=BIG), slice=None)]
    memory = min(map(estimated_bytes, way))
    compile, asked = judged_by(lambda candidate: True)
    found = find_nearest_fit(
        fit_request(finetuning=BIG, memory=memory), slice=None, compile=compile
    )
    assert asked == [found.request]
    assert estimated_bytes(found.request) == memory


def test_the_search_ends(fit_request, monkeypatch):
    monkeypatch.setattr(module, "MAX_COMPILED", 2)
    compile, asked = judged_by(lambda candidate: False)
    assert (
        find_nearest_fit(fit_request(finetuning=BIG), slice=None, compile=compile)
        is None
    )
    assert len(asked) == 2


def test_each_change_is_estimated_to_take_less(fit_request):
    asked = fit_request(finetuning=BIG | {"max_length": 128})
    estimates = [estimated_bytes(asked)]
    estimates += [estimated_bytes(one) for _, one in candidates(asked, slice=None)]
    asked, full, fewer, wider, factored, _ = estimates
    assert asked > full > fewer > max(wider, factored)


@pytest.mark.parametrize(("model", "of"), [(3, "query heads, which are 4")])
def test_a_model_axis_that_does_not_divide_is_refused(fit_request, model, of):
    with pytest.raises(InputError, match=f"mesh_model={model}: must divide the {of}"):
        validate_model_axis(fit_request(mesh_model=model))


def test_a_model_axis_divides_the_devices(fit_request):
    with pytest.raises(InputError, match="mesh_model=4: must divide the devices"):
        validate_model_axis(fit_request(mesh_model=4, devices=6))
