"""The runs that the report is shown."""

from pathlib import Path

import fake_run
import pytest


@pytest.fixture
def begun(tmp_path: Path) -> fake_run.FakeRun:
    """A run that has written its manifest and its seeds, no more."""
    return fake_run.begun(tmp_path / "runs" / "fake")


@pytest.fixture
def finished(tmp_path: Path) -> fake_run.FakeRun:
    """A run of two baselines and two rounds."""
    return fake_run.finished(tmp_path / "runs" / "fake")
