"""Digests that tell a changed byte of any file of a folder."""

import pytest

from isara_jax.errors import InputError
from isara_jax.runtime.checkpoint.digests import (
    DIGESTS,
    validate_digests,
    write_digests,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "deep" / "b.bin").write_bytes(b"")
    write_digests(tmp_path)
    return tmp_path


def test_what_was_written_is_valid(folder):
    validate_digests(folder)
    assert (folder / DIGESTS).read_text().count('": "') == 2


def test_a_folder_without_digests_is_not_checked(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    validate_digests(tmp_path)
    assert not (tmp_path / DIGESTS).exists()


@pytest.mark.parametrize("name", ["a.bin", "deep/b.bin"])
def test_a_changed_file_is_named(folder, name):
    (folder / name).write_bytes(b"abd")
    with pytest.raises(InputError, match=rf"\({name} is not what was written\)"):
        validate_digests(folder)


def test_a_missing_file_is_named(folder):
    (folder / "a.bin").unlink()
    with pytest.raises(InputError, match=r"\(a\.bin is missing\)"):
        validate_digests(folder)


def test_a_file_that_came_later_is_let_pass(folder):
    (folder / "c.bin").write_bytes(b"new")
    (folder / "_CHECKPOINT_METADATA").write_bytes(b"{}")
    validate_digests(folder)
    assert "c.bin" not in (folder / DIGESTS).read_text()


@pytest.mark.parametrize("content", ["{", "[]", '"a.bin"'])
def test_damaged_digests_are_refused(folder, content):
    (folder / DIGESTS).write_text(content)
    with pytest.raises(InputError, match=r"digests\.json is no JSON of it"):
        validate_digests(folder)
