"""One finished run for all tests of the folder, made as a user makes it."""

import subprocess
from dataclasses import dataclass

import pytest
from tiny_run import TinyRun, processor_seconds, write_tiny_run


@dataclass(frozen=True)
class Finished:
    run: TinyRun
    process: "subprocess.CompletedProcess[str]"
    processor_seconds: float


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    run = write_tiny_run(tmp_path_factory.mktemp("end_to_end"))
    used = processor_seconds()
    process = run.start()
    out, err = process.communicate()
    assert process.returncode == 0, err
    return Finished(
        run,
        subprocess.CompletedProcess(process.args, process.returncode, out, err),
        processor_seconds() - used,
    )
