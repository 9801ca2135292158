"""Records that survive a torn write, and files that are whole or absent."""

import errno
import os

import pytest

from isara_jax.errors import InputError
from isara_jax.runtime.files.records import (
    Records,
    read_json,
    write_json,
    write_jsonl,
    write_text,
)


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "deep" / "records.jsonl")


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
