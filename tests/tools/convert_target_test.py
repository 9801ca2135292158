"""What the command refuses, where it writes, and damage: nothing half done is left."""

import shutil
import time

import pytest
from conversion import contents, convert, write_folder
from damage import GGUF, ORBAX, SAFETENSORS


def test_a_target_that_is_there_is_left_alone(whole, tmp_path, capfd):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/mine.txt").touch()
    assert convert(source=whole / "hf", target=tmp_path / "ours") == 2
    assert "ours: exists already; choose another" in capfd.readouterr().err
    assert contents(tmp_path / "ours") == ["mine.txt"]


def test_a_model_s_folder_is_replaced_where_that_is_asked_for(whole, tmp_path):
    target = tmp_path / "ours"
    shutil.copytree(whole / "hf", target)
    (target / "old.txt").touch()
    assert convert(source=whole / "hf", target=target, overwrite=True) == 0
    assert "model.safetensors" in contents(target)
    assert "old.txt" not in contents(target)
    assert contents(tmp_path) == ["ours"]


def test_an_empty_folder_is_replaced_where_that_is_asked_for(whole, tmp_path):
    (tmp_path / "ours").mkdir()
    values = {"source": whole / "hf", "target": tmp_path / "ours"}
    assert convert(**values, overwrite=True) == 0
    assert "model.safetensors" in contents(tmp_path / "ours")


def test_what_is_no_model_is_never_replaced(whole, tmp_path, capfd):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("home", "file"):
        values = {"source": whole / "hf", "target": tmp_path / name}
        assert convert(**values, overwrite=True) == 2
        assert "replaces a model's folder only" in capfd.readouterr().err
    assert contents(tmp_path / "home") == ["thesis.tex"]


def test_a_source_is_never_written_over(tmp_path, capfd):
    write_folder(tmp_path / "models/theirs")
    before = contents(tmp_path / "models/theirs")
    (tmp_path / "link").symlink_to(tmp_path / "models/theirs")
    for target in ("models/theirs", "models", "link"):
        values = {"source": tmp_path / "models/theirs", "target": tmp_path / target}
        assert convert(**values, overwrite=True) == 2
        assert "holds the source" in capfd.readouterr().err
    assert contents(tmp_path / "models/theirs") == before


def test_a_target_in_a_file(whole, tmp_path, capfd):
    (tmp_path / "file").touch()
    assert convert(source=whole / "hf", target=tmp_path / "file/ours") == 2
    assert "lies in a file" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["source", "target"])
def test_both_must_be_given(name, capfd):
    values = {"source": "a", "target": "b"} | {name: ""}
    assert convert(**values) == 2
    assert f"--{name}: must be given" in capfd.readouterr().err


def test_a_source_that_is_not_there(tmp_path, capfd):
    assert convert(source=tmp_path / "gone", target=tmp_path / "ours") == 2
    assert "no such file or folder" in capfd.readouterr().err
    assert contents(tmp_path) == []


def assert_one_sentence(told, folder):
    """Checks what a refusal wrote: a sentence, and progress at the most before it."""
    lines = [line for line in told.err.splitlines() if not line.startswith("convert: ")]
    assert len(lines) == 1 and 20 < len(lines[0]) < 700, told.err
    assert "Traceback" not in told.err and told.out == ""
    assert contents(folder) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (kind, damage)
        for kind, damages in (("hf", SAFETENSORS), ("orbax", ORBAX), ("m.gguf", GGUF))
        for damage in damages
    ],
)
def test_damaged_sources(whole, tmp_path, kind, damage, capfd):
    source = tmp_path / "source" / kind
    source.parent.mkdir()
    copy = shutil.copytree if (whole / kind).is_dir() else shutil.copyfile
    copy(whole / kind, source)
    {"hf": SAFETENSORS, "orbax": ORBAX, "m.gguf": GGUF}[kind][damage](source)
    (tmp_path / "targets").mkdir()
    began = time.process_time()
    code = convert(source=source, target=tmp_path / "targets/ours", dtype="float32")
    assert code == 2
    assert time.process_time() - began < 20
    assert_one_sentence(capfd.readouterr(), tmp_path / "targets")
