"""The run's folder: append-only records, the manifest, what is done and what is next.

WORKSPACE.md lists the files. Two rules make a run resumable at any point: a file that
stands for a finished stage appears by one rename, and a file that grows gets whole
batches of whole lines, synced to the disk before the run goes on.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_jax.errors import InputError


@dataclass(frozen=True)
class Records:
    """An append-only JSONL file whose torn last line, if any, does not count."""

    path: Path

    def read(self) -> list[dict[str, Any]]:
        """Returns the whole records, oldest first; none where the file is missing.

        Raises:
          InputError: a whole line is damaged.
        """
        if not self.path.exists():
            return []
        whole = self.path.read_bytes().rpartition(b"\n")[0]
        try:
            return [json.loads(line) for line in whole.split(b"\n") if line]
        except ValueError as error:
            raise InputError(f"{self.path}: damaged, not JSON ({error})") from None

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes the records after the last whole line and syncs them to the disk."""
        lines = b"".join(_line(record) for record in records)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.truncate(_whole_length(file.read()))
            file.seek(0, os.SEEK_END)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def keep_first(self, count: int) -> list[dict[str, Any]]:
        """Drops every record after the first `count` and returns those."""
        records = self.read()[:count]
        if self.path.exists():
            self.replace(records)
        return records

    def replace(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes these records instead, all at once."""
        write_jsonl(self.path, records)

    def sort(self, *, by: str) -> list[dict[str, Any]]:
        """Puts the records in the order of a field's text and returns them."""
        found = self.read()
        records = sorted(found, key=lambda record: str(record[by]))
        if records != found:
            self.replace(records)
        return records


@dataclass(frozen=True)
class RoundFolder:
    """Round t's part of the run folder."""

    path: Path

    @property
    def questions(self) -> Records:
        return Records(self.path / "questions.jsonl")

    @property
    def answers(self) -> Records:
        return Records(self.path / "answers.jsonl")

    @property
    def kept(self) -> Path:
        return self.path / "kept.jsonl"

    @property
    def rejected(self) -> Path:
        return self.path / "rejected.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def metrics(self) -> Records:
        return Records(self.path / "metrics.jsonl")

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def summary(self) -> Path:
        return self.path / "round.json"


@dataclass(frozen=True)
class Workdir:
    """runs/NAME."""

    path: Path

    def round(self, number: int) -> RoundFolder:
        return RoundFolder(self.path / f"round_{number:02d}")

    def baseline(self, name: str) -> RoundFolder:
        return RoundFolder(self.path / "baselines" / name)

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def seeds(self) -> Path:
        return self.path / "seeds.jsonl"

    @property
    def stages(self) -> Records:
        return Records(self.path / "stages.jsonl")

    @property
    def engine(self) -> Records:
        return Records(self.path / "engine.jsonl")

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out of the folder.

        Raises:
          InputError: another one is at work there, or the folder is a file.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(
                f"--workdir={self.path}: is a file or lies in one, must be a folder"
            ) from None
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"--workdir={self.path}: another process is at work there; wait "
                    "for it or choose another --workdir"
                ) from None
            yield

    def open(self, flags: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Writes the manifest of a new run, or checks that this is the same run.

        A run that has made nothing yet is a new one: it was stopped by an input that
        has been mended since.

        Raises:
          InputError: the folder is another run's (a flag or a hash differs), or it
            holds files but no manifest.
        """
        before_any_work = {self.manifest, self.seeds}
        if all(path in before_any_work for path in self.path.glob("[!.]*")):
            write_json(self.manifest, {"flags": dict(flags), **facts})
        elif self.manifest.exists():
            self._same_run(flags, facts)
        else:
            raise InputError(
                f"--workdir={self.path}: the folder holds files but no manifest.json, "
                "so it is no run's; choose an empty or a new folder"
            )

    def _same_run(self, flags: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        written = read_json(self.manifest)
        kinds = (("flags", "the flag", flags), ("hashes", "the hash", facts["hashes"]))
        for kind, what, now in kinds:
            then = written.get(kind, {})
            for name in sorted(set(then) | set(now)):
                if then.get(name) != now.get(name):
                    raise InputError(
                        f"--workdir={self.path}: the run there was started with {what} "
                        f"{name}={then.get(name)!r}, this one has {now.get(name)!r}; "
                        "go on with the old value or choose another --workdir"
                    )


def write_json(path: Path, value: Any) -> None:
    """Writes the value so that the file is whole or absent, never half written."""
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
    """Writes all records so that the file is whole or absent."""
    write_text(path, b"".join(_line(record) for record in records).decode("utf-8"))


def write_text(path: Path, text: str) -> None:
    """Writes the text through a temporary neighbour and one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(record), ensure_ascii=False).encode("utf-8") + b"\n"


def _whole_length(content: bytes) -> int:
    return content.rfind(b"\n") + 1
