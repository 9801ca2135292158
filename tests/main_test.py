"""The entry point on wrong input and on a failing machine: one sentence, and resumable.

What the modules below refuse has its details tested there; this table shows that it
reaches the user, and that a mended input goes on with the same command.
"""

import errno
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_run import (
    ROOT,
    TinyRun,
    main_in_process,
    one_device,
    write_tiny_run,
)

from isara_jax import main as module
from isara_jax.config import flag_names
from isara_jax.errors import EnvironmentFailure
from isara_jax.runtime.signals import StopRequested

SHORT = {"rounds": 1, "baselines": False, "candidates": 4, "train_batch": 4}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return write_tiny_run(tmp_path_factory.mktemp("template"))


@pytest.fixture
def run(template, tmp_path):
    shutil.copytree(template.path, tmp_path / "tiny")
    return TinyRun(tmp_path / "tiny")


@pytest.fixture
def call(run, capfd):
    """Runs main with the run's flags; returns its code and the lines of stderr."""

    def call(*more, **changes):
        capfd.readouterr()
        try:
            code = main_in_process([*run.flags(**SHORT | changes), *more])
        except SystemExit as stop:
            code = stop.code
        return code, capfd.readouterr().err.splitlines()

    return call


class Reached(Exception):
    """All input was accepted, and the work would begin."""


@pytest.fixture
def reaches_the_work(call, monkeypatch):
    """Whether the same command, whose input is mended now, goes on."""

    def reaches():
        def reached(*arguments, **keywords):
            raise Reached

        with monkeypatch.context() as patch:
            patch.setattr(module, "hand_over", reached)
            try:
                call()
            except Reached:
                return True
        return False

    return reaches


def change_line(path, number, change):
    lines = path.read_bytes().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(lines) + b"\n")


def without(field):
    def change(line):
        record = json.loads(line)
        del record[field]
        return json.dumps(record).encode()

    return change


def set_attribute(path, **attributes):
    path.write_text(json.dumps(json.loads(path.read_text()) | attributes))


def change_tensors(run, change):
    path = run.model / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def swap_suffix(folder, suffix):
    (folder / "model.safetensors").rename(folder / f"pytorch_model{suffix}")


UP = "model.layers.1.mlp.up_proj.weight"

# What is done to the run's files, the file that is at fault, what is said of it.
WRONG_INPUT = {
    "seeds missing": (lambda r: r.seeds.unlink(), "seeds", "no such file"),
    "seeds empty": (lambda r: r.seeds.write_text("\n"), "seeds", "the file is empty"),
    "seeds not UTF-8": (
        lambda r: change_line(r.seeds, 3, lambda line: line.replace(b"?", b"\xff")),
        "seeds",
        "line 3: not UTF-8",
    ),
    "seeds malformed": (
        lambda r: change_line(r.seeds, 12, lambda line: line[:-1]),
        "seeds",
        "line 12: not JSON",
    ),
    "seeds lack a field": (
        lambda r: change_line(r.seeds, 2, without("answer")),
        "seeds",
        "line 2: the field 'answer' is missing",
    ),
    "seeds duplicated": (
        lambda r: r.seeds.write_bytes(r.seeds.read_bytes() * 2),
        "seeds",
        "line 13: the question of line 1 again",
    ),
    "seeds fewer than demos": (
        lambda r: r.seeds.write_bytes(
            b"".join(r.seeds.read_bytes().splitlines(True)[:2])
        ),
        "seeds",
        "2 seeds, but a prompt of this run holds 3",
    ),
    "heldout missing": (lambda r: r.heldout.unlink(), "heldout", "no such file"),
    "heldout empty": (lambda r: r.heldout.write_text(""), "heldout", "is empty"),
    "heldout not UTF-8": (
        lambda r: change_line(r.heldout, 6, lambda line: line.replace(b"?", b"\xff")),
        "heldout",
        "line 6: not UTF-8",
    ),
    "heldout malformed": (
        lambda r: change_line(r.heldout, 1, lambda line: b"{" + line),
        "heldout",
        "line 1: not JSON",
    ),
    "heldout lacks a field": (
        lambda r: change_line(r.heldout, 4, without("false")),
        "heldout",
        "line 4: the field 'false' must be a list",
    ),
    "heldout duplicated": (
        lambda r: r.heldout.write_bytes(r.heldout.read_bytes() * 2),
        "heldout",
        "line 7: the question of line 1 again",
    ),
    "model missing": (lambda r: shutil.rmtree(r.model), "model", "no such file"),
    "model without weights": (
        lambda r: (r.model / "model.safetensors").unlink(),
        "model",
        "no .safetensors file in the folder",
    ),
    "model without config": (
        lambda r: (r.model / "config.json").unlink(),
        "model",
        "no config.json in the folder",
    ),
    "model without tokenizer": (
        lambda r: (r.model / "tokenizer.json").unlink(),
        "model",
        "no tokenizer in the folder",
    ),
    "model config damaged": (
        lambda r: (r.model / "config.json").write_text("{"),
        "model",
        "damaged, not JSON",
    ),
    "model of another architecture": (
        lambda r: set_attribute(r.model / "config.json", model_type="mamba"),
        "model",
        "model_type='mamba', expected one of llama",
    ),
    "model of an unknown attribute": (
        lambda r: set_attribute(r.model / "config.json", logit_softcap=30.0),
        "model",
        "logit_softcap=30.0, an attribute that is unknown here",
    ),
    "model lacks a tensor": (
        lambda r: change_tensors(r, lambda tensors: tensors.pop(UP)),
        "model",
        f"the tensor '{UP}' is missing",
    ),
    "model has a mis-shaped tensor": (
        lambda r: change_tensors(
            r, lambda tensors: tensors.update({UP: np.zeros((2, 3), np.float32)})
        ),
        "model",
        f"the tensor '{UP}' has the shape [2, 3], expected [48, 32]",
    ),
    "model has a tensor too many": (
        lambda r: change_tensors(
            r, lambda tensors: tensors.update(lora=np.zeros(3, np.float32))
        ),
        "model",
        "the tensor 'lora' is unknown",
    ),
    "model torn": (
        lambda r: os.truncate(r.model / "model.safetensors", 5000),
        "model",
        "not a whole safetensors file",
    ),
    "model a pickle": (
        lambda r: swap_suffix(r.model, ".bin"),
        "model",
        "its only weights are pickles; a pickle runs code when it is read; convert it",
    ),
    "encoder a pickle": (
        lambda r: swap_suffix(r.encoder, ".bin"),
        "encoder",
        "its only weights are pickles",
    ),
    "encoder of another architecture": (
        lambda r: set_attribute(r.encoder / "config.json", model_type="t5"),
        "encoder",
        "model_type='t5', expected 'bert'",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUT)
def test_wrong_input_is_one_sentence_and_once_mended_goes_on(
    case, run, call, template, reaches_the_work
):
    spoil, name, sentence = WRONG_INPUT[case]
    path = getattr(run, name)
    spoil(run)
    code, lines = call()
    assert (code, len(lines)) == (2, 1), lines
    assert str(path) in lines[0] and sentence in lines[0]

    original = getattr(template, name)
    if original.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original, path)
    else:
        shutil.copy(original, path)
    assert reaches_the_work()


WRONG_FLAGS = {
    "--round=3": "Unknown command line flag 'round'. Did you mean: rounds ?",
    "--rounds=three": "flag --rounds=three: ",
    "--flagfile=none.flags": "none.flags",
    "--rounds=0": "--rounds=0: must be from 1 to --demos=3",
    "--question_top_p=2": "--question_top_p=2.0: must be in (0, 1]",
    "--mesh_data=99": "--mesh_data=99 --mesh_model=1: ",
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


@pytest.fixture(scope="module")
def undisturbed(template, tmp_path_factory):
    """A finished short run, the same for all tests of this file."""
    path = tmp_path_factory.mktemp("undisturbed") / "tiny"
    shutil.copytree(template.path, path)
    run = TinyRun(path)
    assert main_in_process(run.flags(**SHORT)) == 0
    return run


def results(run):
    names = ("questions", "answers", "kept", "rejected", "metrics", "heldout_answers")
    folder = run.workdir / "round_01"
    files = [folder / f"{name}.jsonl" for name in names]
    files += [folder / "evaluation.json", run.workdir / "model/model.safetensors"]
    return {file.name: file.read_bytes() for file in files}


def test_a_run_in_one_process_ends_well(undisturbed):
    assert (undisturbed.workdir / "report.html").is_file()
    assert len(results(undisturbed)) == 8


@pytest.fixture
def begun(undisturbed, run):
    """The folder of a run that was stopped after its questions."""
    for name in ("manifest.json", "seeds.jsonl", "round_01/questions.jsonl"):
        file = run.workdir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (undisturbed.workdir / name).read_text()
        file.write_text(text.replace(str(undisturbed.path), str(run.path)))
    return run


def test_another_flag_is_refused_and_the_old_one_goes_on(begun, call, reaches_the_work):
    code, lines = call(seed=7)
    assert (code, lines) == (
        2,
        [
            f"--workdir={begun.workdir}: the run there was started with the flag "
            "seed=42, this one has 7; go on with the old value or choose another "
            "--workdir"
        ],
    )
    assert reaches_the_work()


def test_another_seeds_file_is_refused(begun, call, template, reaches_the_work):
    begun.seeds.write_bytes(begun.seeds.read_bytes().replace(b"roof", b"wall"))
    code, lines = call()
    assert (code, len(lines)) == (2, 1) and "the hash seeds='" in lines[0]
    shutil.copy(template.seeds, begun.seeds)
    assert reaches_the_work()


def test_other_weights_are_refused(begun, call):
    change_tensors(begun, lambda tensors: tensors[UP].fill(0))
    code, lines = call()
    assert (code, len(lines)) == (2, 1) and "the hash model='" in lines[0]


def test_operational_flags_may_change(begun, call, reaches_the_work, monkeypatch):
    monkeypatch.setattr(module, "hand_over", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(mesh_data=2, compilation_cache="")


def test_a_damaged_record_is_one_sentence(begun, call):
    questions = begun.workdir / "round_01" / "questions.jsonl"
    questions.write_bytes(b"\x00\x00\n" + questions.read_bytes())
    code, lines = call()
    assert code == 2
    assert lines[-1].startswith(f"{questions}: damaged, not JSON")
    assert not any("Traceback" in line for line in lines)


def full_disk_after(calls):
    """Stands in for os.fsync on a disk that is full after so many calls."""
    count = iter(range(1, 10_000))

    def fsync(descriptor):
        if next(count) > calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


@pytest.mark.parametrize("writes", [0, 3, 6, 10, 15])
def test_a_full_disk_is_one_sentence_and_with_room_the_run_ends_the_same(
    writes, run, call, monkeypatch, undisturbed
):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk_after(writes))
        code, lines = call()
    assert code == 1
    assert lines[-1] == (
        "[Errno 28] No space left on device: put that right and run the same command "
        "again, which goes on from what is written"
    )
    assert not any("Traceback" in line for line in lines)
    assert call()[0] == 0
    assert results(run) == results(undisturbed)


def test_a_disk_that_takes_no_checkpoint(run, call, undisturbed):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Orbax cuts the checkpoint into files as it likes: one of them is larger.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        code, lines = call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert "cannot be written (File too large" in lines[-1]
    assert "run the same command again" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert call()[0] == 0
    assert results(run) == results(undisturbed)


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


def as_a_process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "isara_jax.main", *arguments],
        cwd=ROOT,
        env=one_device(),
        capture_output=True,
        text=True,
        check=False,
    )


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
