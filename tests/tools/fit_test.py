"""Asked as a user asks: by the flags of a run, about files without weights."""

import dataclasses
import json
import re

import pytest
from absl import flags
from fit_outcomes import outcome
from python_source import ROOT
from tiny_llama import TINY

from isara_jax.cli.flags import define_sections, sections_from_flags
from isara_jax.errors import EnvironmentFailure, InputError
from isara_jax.fit.machines.machine import this_host
from isara_jax.fit.nearest_fit import NearestFit
from isara_jax.models.llama.huggingface import config_to_hf
from isara_jax.tools import fit

pytestmark = pytest.mark.usefixtures("shapes_for_arrays")
SMALL = {
    "dtype": "float32",
    "mesh_data": 1,
    "max_length": 64,
    "train_batch": 2,
    "accumulation": 1,
    "candidates": 4,
    "max_slots": 2,
    "demo_tokens": 0,
    "question_beams": 1,
    "question_length_penalty": 1,
    "question_max_new_tokens": 8,
    "answer_beams": 1,
    "answer_max_new_tokens": 4,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Returns a folder that holds a shape, and nothing else."""
    folder = tmp_path_factory.mktemp("model")
    attributes = config_to_hf(TINY, dtype="float32")
    (folder / "config.json").write_text(json.dumps(attributes))
    return folder


def parsed(*arguments):
    values = flags.FlagValues()
    define_sections(fit.DEFINED, values)
    values(["fit", *arguments])
    return values


def small(folder, **changes):
    given = SMALL | {"model": folder} | changes
    return parsed(*(f"--{name}={value}" for name, value in given.items()))


def test_a_model_without_weights_is_told_to_fit_this_host(model, capsys):
    fit.work(small(model))
    told = capsys.readouterr().out
    for program in (
        "train step, 1 x 2 rows of 64: fits, ",
        "prompt, 128 positions of 120: fits, ",
        "decoding, 2 slots of 160: fits, ",
        f"{model} fits this host (cpu)\n",
    ):
        assert program in told
    assert told.count("GiB that a device exchanges") == 3
    assert re.search(r"at least .* so at most [\d,]+ tokens a second", told)


@pytest.fixture
def short_of_memory(monkeypatch):
    """Leaves the host too little memory for anything, and compiles nothing."""
    short = outcome("does not fit")
    monkeypatch.setattr(fit, "programs_of", lambda request: [short.program])
    monkeypatch.setattr(fit, "compile_and_check", lambda program, *, machine: short)
    return short


def test_what_does_not_fit_ends_with_the_nearest_that_does(
    model, short_of_memory, monkeypatch, capsys
):
    found = NearestFit(
        request=None,
        changes={"remat": "full", "mesh_model": "2"},
        outcomes=[short_of_memory],
    )
    monkeypatch.setattr(fit, "find_nearest_fit", lambda request, *, slice: found)
    with pytest.raises(EnvironmentFailure, match="does not fit this host"):
        fit.work(small(model))
    assert capsys.readouterr().out.endswith(
        "that fits, by compiling it (1.00 GiB): --remat=full --mesh_model=2\n"
    )


def test_the_nearest_need_not_be_looked_for(model, short_of_memory, capsys):
    with pytest.raises(EnvironmentFailure):
        fit.work(small(model, nearest="off"))
    assert "nearest" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["quickstart", "paper_llama"])
def test_a_run_s_flagfile_says_what_is_asked(name):
    values = parsed(f"--flagfile={ROOT}/configs/{name}.flags")
    sections = sections_from_flags(fit.READ, values)
    request = fit.request_of(sections | of_package(sections), slice=None)
    assert request.slots == values.max_slots
    assert request.prompts == values.candidates
    assert request.finetuning.train_batch == values.train_batch
    assert fit.new_positions(request.sampling_params) == max(
        fit.new_positions(sections[step]) for step in ("question", "answer")
    )


def of_package(sections):
    return {
        "source": dataclasses.replace(sections["source"], model="llama-7b"),
        "runtime": dataclasses.replace(sections["runtime"], mesh_data=1),
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"slice": "v5e-3"}, "slice=v5e-3: no such slice; known are v4-8, "),
        ({"mesh_model": 3}, "mesh_model=3: must divide the query heads"),
        ({"model": "llama-8b"}, "'llama-8b': no such file or folder"),
        ({"master_dtype": "bfloat16"}, "master_dtype=bfloat16: needs `dtype`"),
        ({"max_slots": -1}, "--max_slots=-1: must be 0 or more"),
    ],
)
def test_bad_input_is_refused(model, changes, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        fit.work(small(model, **changes))


def test_the_host_is_what_it_is():
    machine = this_host("float32")
    assert machine.memory * len(machine.devices) < 2**50
    assert machine.flops > 0 and machine.bandwidth > 0
