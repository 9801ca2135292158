import json
from dataclasses import dataclass

import pytest

from isara_jax.errors import InputError
from isara_jax.report.run_data import parse
from isara_jax.runtime.files.records import Records


@dataclass(frozen=True, kw_only=True)
class Thing:
    name: str
    size: float
    tags: tuple[str, ...] = ()
    score: float | None = None


def test_fields_are_taken_and_other_keys_left(tmp_path):
    record = {"name": "a", "size": 2, "tags": ["x"], "colour": "red"}
    thing = parse.parse_record(Thing, record, tmp_path)
    assert thing == Thing(name="a", size=2, tags=("x",))


def test_given_fields_need_no_record(tmp_path):
    assert parse.parse_record(Thing, {"size": 1.5}, tmp_path, name="b").name == "b"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "a"}, "a record lacks the field 'size'"),
        ({"name": 1, "size": 1}, "'name' must be a string, got 1"),
        ({"name": "a", "size": "1"}, "'size' must be a number, got '1'"),
        ({"name": "a", "size": 1, "tags": "x"}, "'tags' must be a list of strings"),
        ({"name": "a", "size": 1, "tags": [1]}, "'tags' must be a list of strings"),
        ({"name": "a", "size": 1, "score": "x"}, "'score' must be a number or null"),
        (["a"], "expected a JSON object, got \\['a'\\]"),
    ],
)
def test_what_breaks_the_format_is_named(tmp_path, record, message):
    with pytest.raises(InputError, match=f"things.jsonl: .*{message}"):
        parse.parse_record(Thing, record, tmp_path / "things.jsonl")


def test_a_missing_file_has_no_records(tmp_path):
    assert parse.read_records(Thing, tmp_path / "none.jsonl") == ()


def test_a_torn_last_line_does_not_count(tmp_path):
    path = tmp_path / "things.jsonl"
    path.write_text(json.dumps({"name": "a", "size": 1}) + '\n{"name": "b", "si')
    assert [thing.name for thing in parse.read_records(Thing, path)] == ["a"]


@pytest.mark.parametrize("content", [b"{]\n", b"\xff\n"])
def test_a_damaged_line_is_an_input_error(tmp_path, content):
    path = tmp_path / "things.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"things.jsonl: damaged"):
        parse.read_jsonl(path)


def test_a_line_that_is_no_object_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Records, "read", lambda self: [[1]])  # as without a hook
    with pytest.raises(InputError, match="expected a JSON object"):
        parse.read_jsonl(tmp_path / "things.jsonl")


def test_nested_records_must_have_their_kind(tmp_path):
    with pytest.raises(InputError, match="expected a JSON list"):
        parse.parse_list(Thing, {}, tmp_path)
    with pytest.raises(InputError, match="expected a JSON object"):
        parse.parse_object(Thing, [], tmp_path)
