"""How a command ends: its exit code, and one sentence on standard error."""

import errno
import os
import shlex
import sys

import jax
import pytest
from absl import flags

from isara_jax.cli import command
from isara_jax.errors import GO_ON, EnvironmentFailure, InputError
from isara_jax.runtime.signals import StopRequested


def ended(work, *arguments):
    return command.exit_code(
        ["tool", *arguments],
        work=work,
        module="isara_jax.tools.generate",
        to_save_memory="--slots",
    )


def failing(error):
    def work():
        raise error

    return work


def test_work_that_is_done_ends_with_0(capsys):
    calls = []
    assert ended(lambda: calls.append(None)) == 0
    assert calls == [None] and capsys.readouterr() == ("", "")


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("--top_k=-1: must be >= 0"), 2, "--top_k=-1: must be >= 0"),
        (EnvironmentFailure("the hub is away"), 1, "the hub is away"),
        (FloatingPointError("the loss is nan"), 1, "the loss is nan"),
        (FULL, 1, f"[Errno 28] No space left on device: {GO_ON}"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"),
            1,
            "The device is out of memory; lower --slots (RESOURCE_EXHAUSTED: 9 GB)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stops_the_work_is_one_sentence(capsys, error, code, sentence):
    assert ended(failing(error)) == code
    assert capsys.readouterr() == ("", f"{sentence}\n")


def test_a_stop_says_how_to_go_on(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["generate.py", "--model=a b", "--slots=2"])
    assert ended(failing(StopRequested("asked to stop"))) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith("Stopped; all work so far is kept. To go on: ")
    assert shlex.split(sentence.partition("To go on: ")[2]) == [
        *(sys.executable, "-m", "isara_jax.tools.generate"),
        *("--model=a b", "--slots=2"),
    ]


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("INTERNAL: what?"), KeyError("x")]
)
def test_a_bug_is_not_hidden(error):
    with pytest.raises(type(error)):
        ended(failing(error))


def test_an_argument_that_is_no_flag_is_refused_before_the_work(capsys):
    assert ended(failing(AssertionError("reached")), "model.gguf") == 2
    assert capsys.readouterr().err == (
        "model.gguf: not understood, all input is a --flag\n"
    )


def test_a_wrong_flag_ends_in_a_sentence_and_code_2(capsys, monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_integer("slots", 1, "help", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(SystemExit) as stop:
        command.parse(["tool", "--slot=3"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "Unknown command line flag 'slot'. Did you mean: slots ?\n"
    )


def test_a_flagfile_is_looked_for_among_the_package_s(monkeypatch):
    monkeypatch.setattr(command, "locate_packaged", lambda path: f"/package/{path}")
    arguments = ["tool", "--flagfile=a.flags", "--seed=1", "--flagfile", "b.flags"]
    assert command.with_flagfiles_located(arguments) == [
        "tool",
        "--flagfile=/package/a.flags",
        "--seed=1",
        "--flagfile",
        "/package/b.flags",
    ]
