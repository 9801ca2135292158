"""A run's folder: its files, and the check that a resumed run is the same one.

WORKSPACE.md lists the files. Two rules make a run resumable at any point: a file that
marks a finished stage appears by one rename, and a file that grows gets whole batches
of whole lines, synced to the disk before the run goes on.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_jax.errors import FieldError
from isara_jax.runtime.files import Records, read_json, write_json


@dataclass(frozen=True)
class RoundFolder:
    """The files of a round, or of a baseline."""

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
    """The files of a run, `runs/NAME`."""

    path: Path

    def round(self, round_index: int) -> RoundFolder:
        return RoundFolder(self.path / f"round_{round_index:02d}")

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
        """Makes the folder, and keeps a second process out of it.

        Raises:
          FieldError: another process is at work there, or the path is a file's.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise FieldError(
                "workdir", self.path, "is a file or lies in one, must be a folder"
            ) from None
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FieldError(
                    "workdir",
                    self.path,
                    "another process is at work there; wait for it or choose another "
                    "`workdir`",
                ) from None
            yield

    def open(self, flags: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Writes the manifest of a new run, or checks that this is the same run.

        A folder that holds a manifest and the seeds only is a new run's: a wrong input
        stopped it before any work.

        Raises:
          FieldError: the folder is another run's (a flag or a hash differs), or it
            holds files but no manifest.
        """
        written_first = {self.manifest, self.seeds}
        if all(path in written_first for path in self.path.glob("[!.]*")):
            write_json(self.manifest, {"flags": dict(flags), **provenance})
        elif self.manifest.exists():
            self._validate_same_run(flags, provenance)
        else:
            raise FieldError(
                "workdir",
                self.path,
                "the folder holds files but no manifest.json, so it is no run's; "
                "choose an empty or a new folder",
            )

    def _validate_same_run(
        self, flags: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> None:
        written = read_json(self.manifest)
        for part, what, now in (
            ("flags", "the flag", flags),
            ("hashes", "the hash", provenance["hashes"]),
        ):
            then = written.get(part, {})
            for name in sorted(set(then) | set(now)):
                if then.get(name) != now.get(name):
                    raise FieldError(
                        "workdir",
                        self.path,
                        f"the run there was started with {what} "
                        f"{name}={then.get(name)!r}, this one has {now.get(name)!r}; "
                        "go on with the old value or choose another `workdir`",
                    )
