"""Flags, the working folder, a failing machine, the process: one sentence each."""

import functools
import shlex
import sys

import jax
import pytest
from processes import run_module
from tiny_run import SHORT, main_in_process, one_device

from isara_jax import main as module
from isara_jax.config import flag_names
from isara_jax.errors import EnvironmentFailure
from isara_jax.runtime.signals import StopRequested

WRONG_FLAGS = {
    "--round=3": "Unknown command line flag 'round'. Did you mean: rounds ?",
    "--rounds=three": "flag --rounds=three: ",
    "--flagfile=none.flags": "none.flags",
    "--rounds=0": "--rounds=0: must be from 1 to --demos=3",
    "--question_top_p=2": "--question_top_p=2.0: must be in (0, 1]",
    "--mesh_data=99": "--mesh_data=99: must be at least 1, as must --mesh_model=1, and",
    "--baselines --evaluation_tokens=600": "tokens; with 600 new ones it must",
    "--model=pytorch_model.pt": "'pytorch_model.pt': no such file or folder",
    "align": "align: not understood, all input is a --flag",
}


@pytest.mark.parametrize("arguments", WRONG_FLAGS)
def test_a_wrong_flag_is_one_sentence(arguments, call, reaches_the_work):
    code, lines = call(*arguments.split())
    assert (code, len(lines)) == (2, 1), lines
    assert WRONG_FLAGS[arguments] in lines[0]
    assert reaches_the_work()


def test_chat_with_a_tokenizer_that_has_no_chat_format(run, call):
    (run.model / "chat_template.jinja").unlink()
    code, lines = call(template="chat")
    assert (code, len(lines)) == (2, 1)
    assert "--template=chat: the tokenizer has no chat format" in lines[0]


def test_a_workdir_that_is_a_file(run, call):
    run.workdir.write_text("")
    code, lines = call()
    assert (code, lines) == (
        2,
        [f"--workdir={run.workdir}: is a file or lies in one, must be a folder"],
    )


def test_a_workdir_of_other_files(run, call):
    run.workdir.mkdir()
    (run.workdir / "notes.txt").write_text("mine")
    code, lines = call()
    assert (code, len(lines)) == (2, 1) and "holds files but no manifest" in lines[0]


def test_a_workdir_that_cannot_be_written(call):
    code, lines = call(workdir="/sys/isara_jax")  # where nobody makes a folder
    assert (code, len(lines)) == (1, 1)
    assert "/sys/isara_jax" in lines[0] and "run the same command again" in lines[0]


class FakeDeviceError(jax.errors.JaxRuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (EnvironmentFailure("the hub is away"), "the hub is away"),
        (FloatingPointError("step 3: loss nan"), "step 3: loss nan"),
        (
            FakeDeviceError("RESOURCE_EXHAUSTED: no 5 GB\nmore\nlines"),
            "The device is out of memory; lower --max_slots or --train_batch "
            "(RESOURCE_EXHAUSTED: no 5 GB)",
        ),
    ],
)
def test_a_failing_machine_is_one_sentence(call, monkeypatch, error, sentence):
    def fail(config):
        raise error

    monkeypatch.setattr(module, "work", fail)
    assert call() == (1, [sentence])


def test_a_bug_is_not_dressed_up(call, monkeypatch):
    def fail(config):
        raise FakeDeviceError("INTERNAL: wrong program")

    monkeypatch.setattr(module, "work", fail)
    with pytest.raises(FakeDeviceError):
        call()


def test_a_stop_tells_how_to_go_on(call, monkeypatch):
    def stop(config):
        raise StopRequested

    monkeypatch.setattr(module, "work", stop)
    monkeypatch.setattr(sys, "argv", ["main.py", "--workdir=runs/my run"])
    code, (line,) = call()
    assert code == 1 and line.startswith("Stopped; all work so far is kept.")
    command = shlex.split(line.partition("To go on: ")[2])
    assert command == [
        *(sys.executable, "-m", "isara_jax.main"),
        "--workdir=runs/my run",
    ]


as_a_process = functools.partial(run_module, "isara_jax.main", **one_device())


def test_help_shows_every_flag():
    found = as_a_process("--help")
    shown = found.stdout
    assert "--flagfile=configs/quickstart.flags" in shown
    for name in flag_names(operational=False) + flag_names(operational=True):
        assert f"\n  --{name}:" in shown or f"\n  --[no]{name}:" in shown, name


def test_the_process_ends_with_the_code_and_the_sentence(run):
    run.seeds.unlink()
    found = as_a_process(*run.flags())
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"{run.seeds}: no such file\n"


def test_the_process_ends_with_2_on_a_misspelt_flag():
    found = as_a_process("--sedes=x")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "Unknown command line flag 'sedes'. Did you mean: seeds ?\n"


def test_rows_to_look_at_are_printed_and_nothing_is_begun(run, capfd):
    packed = {"train_batch": 8, "accumulation": 1, "train_row_length": 1024}
    arguments = run.flags(**SHORT | packed, debug_examples=1)
    capfd.readouterr()
    assert main_in_process(arguments) == 0
    head, names, *lines = capfd.readouterr().out.splitlines()
    ids = head.removeprefix("row 1 of 1: ").split(", ")
    assert len(ids) == 8 and len(set(ids)) == 8
    assert names == "example position | token | trained?"
    ends = [line for line in lines if line.endswith("| '<|im_end|>' | yes")]
    assert len(ends) == len(ids)
    assert [int(line.split()[0]) for line in ends] == list(range(1, 9))
    assert not run.workdir.exists()
