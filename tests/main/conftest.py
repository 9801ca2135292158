"""The files of a short run, and main called on them as a user calls it."""

import shutil

import pytest
from tiny_run import SHORT, TinyRun, main_in_process, write_tiny_run

from isara_jax import main as module


@pytest.fixture(scope="session")
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
            patch.setattr(module, "align_and_release", reached)
            try:
                call()
            except Reached:
                return True
        return False

    return reaches
