"""Turns the JSON objects of a run's folder into frozen dataclasses, checking them.

The fields of a dataclass are the format: a field without a default must be there, and
what is annotated as a text or a number must be one. Other keys are left alone.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from isara_jax.errors import InputError
from isara_jax.runtime.files import Records, read_json

T = TypeVar("T")

_EXPECTED: Mapping[Any, tuple[type | tuple[type, ...], str]] = {
    str: (str, "a text"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    float | None: ((int, float, type(None)), "a number or null"),
    bool: (bool, "true or false"),
    tuple[str, ...]: (list, "a list of texts"),
}


def read_all(kind: type[T], path: Path, **given: Any) -> tuple[T, ...]:
    """Returns one `kind` a line of a JSONL file; none where there is no file.

    Raises:
      InputError: a line is damaged or lacks a field.
    """
    return tuple(build(kind, record, path, **given) for record in read_lines(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSONL file; none where there is no file.

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


def read_object(path: Path) -> dict[str, Any]:
    """Returns the one object of a JSON file.

    Raises:
      InputError: it is damaged or no object.
    """
    record = read_json(path)
    _check_object(record, path)
    return dict(record)


def build(kind: type[T], record: Any, path: Path, **given: Any) -> T:
    """Returns a `kind` with the fields of the record, save those that are given.

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


def build_all(kind: type[T], records: Any, path: Path) -> tuple[T, ...]:
    """Returns a `kind` for each record of a list; raises as `build`."""
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a JSON list, got {records!r}")
    return tuple(build(kind, record, path) for record in records)


def build_named(kind: type[T], records: Any, path: Path) -> dict[str, T]:
    """Returns a `kind` for each named record of an object; raises as `build`."""
    _check_object(records, path)
    return {name: build(kind, record, path) for name, record in records.items()}


def _value(field: Field[Any], record: Mapping[str, Any], path: Path) -> Any:
    if field.name not in record:
        raise InputError(f"{path}: a record lacks the field {field.name!r}")
    value = record[field.name]
    types, meaning = _EXPECTED[field.type]
    if not isinstance(value, types) or not _all_texts(value):
        raise InputError(
            f"{path}: the field {field.name!r} must be {meaning}, got {value!r}"
        )
    return tuple(value) if isinstance(value, list) else value


def _all_texts(value: object) -> bool:
    """Returns whether a value that is a list holds texts only."""
    return not isinstance(value, list) or all(isinstance(text, str) for text in value)


def _check_object(record: object, path: Path) -> None:
    if not isinstance(record, dict):
        raise InputError(f"{path}: expected a JSON object, got {record!r}")
