"""JSON files that are complete or absent, and append-only JSONL records."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_jax.errors import InputError


@dataclass(frozen=True)
class Records:
    """An append-only JSONL file; an incomplete last line is ignored."""

    path: Path

    def read(self) -> list[dict[str, Any]]:
        """Returns the complete records, oldest first; none if the file is missing.

        Raises:
          InputError: a complete line is damaged.
        """
        if not self.path.exists():
            return []
        complete = self.path.read_bytes().rpartition(b"\n")[0]
        try:
            return [json.loads(line) for line in complete.split(b"\n") if line]
        except ValueError as error:
            raise InputError(f"{self.path}: damaged, not JSON ({error})") from None

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends the records after the last complete line, and syncs the file."""
        lines = b"".join(_line(record) for record in records)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.truncate(_complete_length(file.read()))
            file.seek(0, os.SEEK_END)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def keep_first(self, count: int) -> list[dict[str, Any]]:
        """Drops all records but the first `count`, and returns those."""
        records = self.read()[:count]
        if self.path.exists():
            self.replace(records)
        return records

    def replace(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Replaces all records at once."""
        write_jsonl(self.path, records)

    def sort(self, *, by: str) -> list[dict[str, Any]]:
        """Sorts the records by the text of a field, and returns them."""
        found = self.read()
        records = sorted(found, key=lambda record: str(record[by]))
        if records != found:
            self.replace(records)
        return records


def write_json(path: Path, value: Any) -> None:
    """Writes the value as JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file of the run.

    Raises:
      InputError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged, not JSON ({error})") from None


def write_jsonl(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes all records as JSONL, atomically."""
    write_text(path, b"".join(_line(record) for record in records).decode("utf-8"))


def write_text(path: Path, text: str) -> None:
    """Writes the text to a temporary file beside it, and renames that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(record), ensure_ascii=False).encode("utf-8") + b"\n"


def _complete_length(content: bytes) -> int:
    return content.rfind(b"\n") + 1
