"""Parses the JSON objects of a run's folder into frozen dataclasses.

The fields of a dataclass are the schema: a field without a default is required, and its
value must have the annotated type. Other keys are ignored.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from isara_jax.errors import InputError
from isara_jax.runtime.files import Records, read_json

T = TypeVar("T")

_EXPECTED: Mapping[Any, tuple[type | tuple[type, ...], str]] = {
    str: (str, "a string"),
    int: (int, "an integer"),
    float: ((int, float), "a number"),
    float | None: ((int, float, type(None)), "a number or null"),
    bool: (bool, "true or false"),
    tuple[str, ...]: (list, "a list of strings"),
}


def read_records(kind: type[T], path: Path, **given: Any) -> tuple[T, ...]:
    """Parses every line of a JSONL file; returns none if the file is missing.

    Raises:
      InputError: a line is damaged or lacks a field.
    """
    return tuple(
        parse_record(kind, record, path, **given) for record in read_jsonl(path)
    )


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSONL file; none if the file is missing.

    Raises:
      InputError: a line is no JSON object.
    """
    try:
        records = Records(path).read()
    except ValueError as error:
        raise InputError(f"{path}: damaged, a line is not JSON ({error})") from None
    for record in records:
        _check_object(record, path)
    return records


def read_json_object(path: Path) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
      InputError: it is damaged, or holds no object.
    """
    record = read_json(path)
    _check_object(record, path)
    return dict(record)


def parse_record(kind: type[T], record: Any, path: Path, **given: Any) -> T:
    """Returns a `kind` with the fields of the record; `given` ones are not read.

    Raises:
      InputError: a field is missing or of another type.
    """
    _check_object(record, path)
    values = {
        field.name: _value(field, record, path)
        for field in fields(cast(Any, kind))
        if field.name not in given
        and (field.name in record or field.default is MISSING)
    }
    return kind(**values, **given)


def parse_list(kind: type[T], records: Any, path: Path) -> tuple[T, ...]:
    """Parses each record of a list; raises as `parse_record`."""
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a JSON list, got {records!r}")
    return tuple(parse_record(kind, record, path) for record in records)


def parse_object(kind: type[T], records: Any, path: Path) -> dict[str, T]:
    """Parses each record of an object, by its key; raises as `parse_record`."""
    _check_object(records, path)
    return {name: parse_record(kind, record, path) for name, record in records.items()}


def _value(field: Field[Any], record: Mapping[str, Any], path: Path) -> Any:
    if field.name not in record:
        raise InputError(f"{path}: a record lacks the field {field.name!r}")
    value = record[field.name]
    types, meaning = _EXPECTED[field.type]
    if not isinstance(value, types) or not _all_strings(value):
        raise InputError(
            f"{path}: the field {field.name!r} must be {meaning}, got {value!r}"
        )
    return tuple(value) if isinstance(value, list) else value


def _all_strings(value: object) -> bool:
    """Returns whether a value, if it is a list, holds strings only."""
    return not isinstance(value, list) or all(isinstance(item, str) for item in value)


def _check_object(record: object, path: Path) -> None:
    if not isinstance(record, dict):
        raise InputError(f"{path}: expected a JSON object, got {record!r}")
