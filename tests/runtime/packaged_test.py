"""Files of configs/, on the disk and in an installed package."""

from pathlib import Path

import pytest
from python_source import ROOT

from isara_jax.runtime import packaged as module
from isara_jax.runtime.packaged import locate_packaged


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The folder in which an installed package keeps configs/; we stand elsewhere."""
    folder = tmp_path / "site-packages" / "isara_jax" / "configs"
    (folder / "quickstart").mkdir(parents=True)
    (folder / "quickstart.flags").write_text("--seed=1")
    (folder / "quickstart" / "seeds.jsonl").write_text("{}")

    class Spec:
        submodule_search_locations = (str(folder),)

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: Spec)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
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


def test_without_such_a_package_a_path_stays_what_it_is(installed, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    path = "configs/quickstart.flags"
    assert locate_packaged(path) == Path(path)


def test_a_clone_has_its_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = Path("configs/quickstart.flags")
    assert locate_packaged(path) == path and path.exists()
