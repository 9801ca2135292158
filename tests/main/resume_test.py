"""The same command again: with other flags or files, or after a disk was full."""

import errno
import os
import resource
import shutil

import pytest
from changes import change_tensors
from tiny_run import SHORT, TinyRun, main_in_process

from isara_jax import main as module


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
    change_tensors(begun.model, lambda tensors: tensors["lm_head.weight"].fill(0))
    code, lines = call()
    assert (code, len(lines)) == (2, 1) and "the hash model='" in lines[0]


def test_operational_flags_may_change(begun, call, reaches_the_work, monkeypatch):
    monkeypatch.setattr(module, "align_and_release", lambda *_, **__: 1 / 0)
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
