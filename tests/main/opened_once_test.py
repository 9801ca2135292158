"""A run opens its model's files once, however often it loads the weights."""

from collections import Counter

import gguf
import pytest
from conversion import write_gguf_file
from llama_files import write_llama


@pytest.fixture
def parsed(monkeypatch):
    """Counts how often the header of each GGUF file is parsed."""
    count, parse = Counter(), gguf.GGUFReader.__init__

    def counted(reader, path, *more):
        count[str(path)] += 1
        parse(reader, path, *more)

    monkeypatch.setattr(gguf.GGUFReader, "__init__", counted)
    return count


@pytest.fixture
def loads(monkeypatch):
    """Counts how often a model's weights are read."""
    from isara_jax.models.checkpoints import load

    calls, read = [], load.read_parameter

    def counted(source, tensor, variable, **more):
        if tensor.name == "model.norm.weight":
            calls.append(source.path)
        return read(source, tensor, variable, **more)

    monkeypatch.setattr(load, "read_parameter", counted)
    return calls


def test_a_gguf_header_is_parsed_once_a_run(run, call, parsed, loads, tmp_path):
    reference = write_llama(tmp_path / "llama", max_position_embeddings=512)
    path = write_gguf_file(tmp_path / "m.gguf", reference)
    code, lines = call(model=path, baselines=True, start_from="base")
    assert code == 0, lines
    assert (run.workdir / "model" / "config.json").exists()
    assert len(loads) > 1 and set(loads) == {path}
    assert parsed == {str(path): 1}
