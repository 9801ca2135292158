"""A folder is whole or absent, and the old one stays until then."""

import errno
import os
import subprocess
import sys

import pytest

from isara_jax.runtime.files.atomic import atomic_dir


def contents(folder):
    return {path.name for path in folder.iterdir()}


def test_it_appears_at_the_end_and_alone(tmp_path):
    target = tmp_path / "a" / "model"
    with atomic_dir(target) as partial:
        (partial / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert contents(target.parent) == {"model"}


def test_what_was_there_is_replaced_at_the_end(tmp_path):
    target = tmp_path / "model"
    (target / "deep").mkdir(parents=True)
    with atomic_dir(target) as partial:
        (partial / "file").write_text("new")
        assert contents(target) == {"deep"}
    assert contents(target) == {"file"}
    assert contents(tmp_path) == {"model"}


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, fault):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()

    def fails():
        with atomic_dir(target) as partial:
            (partial / "file").touch()
            raise fault

    with pytest.raises(fault):
        fails()
    assert contents(tmp_path) == {"model"}
    assert contents(target) == {"old"}


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    program = (
        "import os, pathlib, sys\n"
        "from isara_jax.runtime.files.atomic import atomic_dir\n"
        "with atomic_dir(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'half').touch()\n"
        "    os._exit(9)\n"
    )
    target = tmp_path / "model"
    command = [sys.executable, "-c", program, target]
    assert subprocess.run(command, check=False).returncode == 9
    assert not target.exists()
    assert contents(tmp_path) == {".model.partial"}
    with atomic_dir(target) as partial:
        assert contents(partial) == set()
    assert contents(tmp_path) == {"model"}


def test_a_rename_that_fails_loses_nothing(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    replace = os.replace

    def fails(source, destination):
        if destination == target:
            raise OSError("no")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no"), atomic_dir(target):
        pass
    assert contents(tmp_path) == {".model.old"}


def test_a_failure_that_names_no_file_names_the_folder(tmp_path):
    folder = tmp_path / "model"
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/model'$"),
        atomic_dir(folder),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"'other'$"), atomic_dir(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "other")
