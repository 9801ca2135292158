"""Files of configs/, on the disk, in an installed package, and in a clone."""

from pathlib import Path

import pytest
from python_source import ROOT

from isara_jax.runtime import packaged as module
from isara_jax.runtime.packaged import locate_packaged


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The folder in which an installed package keeps configs/."""
    folder = tmp_path / "site-packages" / "isara_jax" / "configs"
    (folder / "quickstart").mkdir(parents=True)
    (folder / "quickstart.flags").write_text("--seed=1")
    (folder / "quickstart" / "seeds.jsonl").write_text("{}")
    monkeypatch.setattr(module, "_PACKAGE", folder.parent)
    return folder


@pytest.mark.parametrize("path", ["quickstart.flags", "quickstart/seeds.jsonl"])
def test_a_file_that_is_not_here_is_the_package_s(installed, path):
    assert locate_packaged(f"configs/{path}") == installed / path


def test_a_file_on_the_disk_comes_first(installed):
    Path("configs").mkdir()
    Path("configs/quickstart.flags").write_text("--seed=2")
    found = locate_packaged("configs/quickstart.flags")
    assert found == Path("configs/quickstart.flags")


@pytest.mark.parametrize("path", ["configs/other.flags", "quickstart.flags", "a/b.c"])
def test_anything_else_stays_what_it_is(installed, path):
    assert locate_packaged(path) == Path(path)


def test_a_clone_has_its_own():
    found = locate_packaged("configs/quickstart.flags")
    assert found == ROOT / "configs" / "quickstart.flags"
