"""Records that survive a torn write, whole or absent files, one run a folder."""

import errno
import json
import os
import subprocess
import sys

import pytest

from isara_jax.errors import InputError
from isara_jax.run.workdir import Workdir
from isara_jax.runtime.files.records import (
    Records,
    read_json,
    write_json,
    write_jsonl,
    write_text,
)

FLAGS = {"rounds": 2, "learning_rate": 1e-5, "template": "chat"}
FACTS = {"hashes": {"seeds": "aa", "model": "bb"}, "versions": {}, "created": "now"}


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "deep" / "records.jsonl")


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "runs" / "one")


def full_disk(*arguments, **keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_records_come_back_in_their_order(records):
    assert records.read() == []
    records.append([{"id": "a", "text": "line\nbreak \u2028 é \x00"}])
    records.append([{"id": "b"}, {"id": "c"}])
    assert [record["id"] for record in records.read()] == ["a", "b", "c"]
    assert records.read()[0]["text"] == "line\nbreak \u2028 é \x00"


@pytest.mark.parametrize("torn", [b'{"id": "c', b"{", b'{"id": "\xc3'])
def test_a_torn_last_line_does_not_count_and_is_written_over(records, torn):
    records.append([{"id": "a"}, {"id": "b"}])
    whole = records.path.read_bytes()
    records.path.write_bytes(whole + torn)
    assert [record["id"] for record in records.read()] == ["a", "b"]
    records.append([{"id": "c"}])
    assert records.path.read_bytes() == whole + b'{"id": "c"}\n'


def test_a_file_that_is_all_torn_holds_nothing(records):
    records.append([])
    records.path.write_bytes(b'{"id"')
    assert records.read() == []
    records.append([{"id": "a"}])
    assert records.path.read_bytes() == b'{"id": "a"}\n'


def test_a_damaged_line_is_refused_with_its_file(records):
    records.append([{"id": "a"}])
    records.path.write_bytes(b"\x00\x00\n" + records.path.read_bytes())
    with pytest.raises(InputError, match=r"records\.jsonl: damaged, not JSON"):
        records.read()


def test_keep_first_drops_the_rest(records):
    assert records.keep_first(3) == []
    assert not records.path.exists()
    records.append([{"id": n} for n in range(4)])
    assert records.keep_first(2) == [{"id": 0}, {"id": 1}]
    assert records.read() == [{"id": 0}, {"id": 1}]


def test_a_full_disk_leaves_the_earlier_records(records, monkeypatch):
    records.append([{"id": "a"}])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            records.append([{"id": "b"}])
    assert records.read()[0] == {"id": "a"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch, call):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_text(path, "second\n")
    assert path.read_bytes() == b"first\n"
    write_text(path, "third\r\né")
    assert path.read_bytes() == "third\r\né".encode()
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_json_of_a_run_is_written_as_text_and_read_back(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"text": "é", "list": [1, 2.5]})
    assert "é" in path.read_text(encoding="utf-8")
    assert read_json(path) == {"text": "é", "list": [1, 2.5]}
    write_jsonl(path, [{"a": 1}, {"b": "é"}])
    assert path.read_bytes() == '{"a": 1}\n{"b": "é"}\n'.encode()


@pytest.mark.parametrize("content", [b"{", b"", b"\xff"])
def test_damaged_json_is_refused_with_its_file(tmp_path, content):
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"value\.json: damaged, not JSON"):
        read_json(path)


def test_the_places_of_a_run(workdir):
    root = workdir.path
    assert workdir.round(1).questions.path == root / "round_01" / "questions.jsonl"
    assert workdir.round(12).kept == root / "round_12" / "kept.jsonl"
    assert workdir.baseline("sft").evaluation == root / "baselines/sft/evaluation.json"


def begin(workdir, flags=FLAGS, facts=FACTS):
    with workdir.locked():
        workdir.open(flags, facts)


def work(workdir):
    workdir.round(1).questions.append([{"id": "r01-0000"}])


def test_the_same_run_goes_on(workdir):
    begin(workdir)
    work(workdir)
    begin(workdir, facts=FACTS | {"created": "later"})
    assert read_json(workdir.manifest) == {"flags": FLAGS, **FACTS}


@pytest.mark.parametrize(
    ("flags", "hashes", "named"),
    [
        ({"rounds": 3}, {}, "the flag rounds=2, this one has 3"),
        ({"template": "paper"}, {}, "template='chat', this one has 'paper'"),
        ({"new": 1}, {}, "the flag new=None, this one has 1"),
        ({}, {"seeds": "cc"}, "the hash seeds='aa', this one has 'cc'"),
        ({}, {"heldout": "dd"}, "the hash heldout=None, this one has 'dd'"),
    ],
)
def test_another_run_is_refused_by_what_differs(workdir, flags, hashes, named):
    begin(workdir)
    work(workdir)
    before = workdir.manifest.read_bytes()
    with pytest.raises(InputError) as caught:
        begin(workdir, FLAGS | flags, FACTS | {"hashes": FACTS["hashes"] | hashes})
    assert str(caught.value).startswith(f"workdir={workdir.path}: ")
    assert named in str(caught.value)
    assert workdir.manifest.read_bytes() == before


def test_a_run_that_has_made_nothing_may_be_another_one(workdir):
    begin(workdir)
    write_jsonl(workdir.seeds, [{"id": "seed-0000"}])
    begin(workdir, FLAGS | {"rounds": 3})
    assert read_json(workdir.manifest)["flags"]["rounds"] == 3


def test_a_kill_while_the_manifest_is_written_leaves_a_new_run(workdir):
    with workdir.locked():
        (workdir.path / ".manifest.json.partial").write_text("{")
        workdir.open(FLAGS, FACTS)
    assert read_json(workdir.manifest)["flags"] == FLAGS


def test_a_folder_of_other_files_is_no_run(workdir):
    workdir.path.mkdir(parents=True)
    (workdir.path / "thesis.tex").write_text("\\begin{document}")
    with pytest.raises(InputError, match=r"holds files but no manifest\.json"):
        begin(workdir)
    assert not workdir.manifest.exists()


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_is_no_workdir(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file or lies in one, must be a folder"):
        begin(Workdir(tmp_path / "file" / inside))


def test_a_second_process_is_kept_out(workdir):
    code = (
        "import sys, pathlib\n"
        "from isara_jax.run.workdir import Workdir\n"
        "with Workdir(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(workdir.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="another process is at work there"):
            begin(workdir)
        other.communicate("\n")
    begin(workdir)
    assert json.loads(workdir.manifest.read_text())["flags"] == FLAGS
