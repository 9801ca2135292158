"""The files of a tiny model, read once."""

import pytest
from tiny_run import TinyRun, write_tiny_run

import isara_jax as isara


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> TinyRun:
    return write_tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model(tiny):
    return isara.load_model(tiny.model, dtype="float32", mesh_data=1)
