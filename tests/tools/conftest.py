"""A model to convert, the same for all files of tests."""

import pytest
from conversion import convert, write_folder, write_gguf_file


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """One model as a folder, as an Orbax folder and as a GGUF file."""
    place = tmp_path_factory.mktemp("whole")
    reference = write_folder(place / "hf", rms_norm_eps=1e-5)
    write_gguf_file(place / "m.gguf", reference)
    values = {"source": place / "hf", "target": place / "orbax", "to": "orbax"}
    assert convert(**values, dtype="float32") == 0
    return place
