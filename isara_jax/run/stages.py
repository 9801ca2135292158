"""How long each stage of a run took: a line a stage in stages.jsonl."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from isara_jax.run.workdir import RoundFolder, Workdir
from isara_jax.runtime.files import Records
from isara_jax.runtime.hardware import compiled

COMPILING = "compiling"


@dataclass
class Spent:
    """What a stage went through, for stages.jsonl."""

    items: int = 0
    tokens: int = 0

    def count_samples(self, records: Records) -> None:
        samples = records.read()
        self.items = len(samples)
        self.tokens = sum(r["prompt_tokens"] + r["new_tokens"] for r in samples)


@contextmanager
def timed(workdir: Workdir, folder: RoundFolder, stage: str) -> Iterator[Spent]:
    """Adds a line to stages.jsonl when a stage first ends; a stop leaves none.

    Compiling programs is a stage of its own, with a line for every other one.
    """
    spent, began, before = Spent(), time.monotonic(), compiled()
    yield spent
    name = f"{folder.path.relative_to(workdir.path).as_posix()}/{stage}"
    if any(line["stage"] == name for line in workdir.stages.read()):
        return
    compiling = compiled() - before
    seconds = max(0.0, time.monotonic() - began - compiling.seconds)
    lines = [{"stage": name, "seconds": round(seconds, 2), **asdict(spent)}]
    if compiling.programs:
        lines.append(
            {
                "stage": COMPILING,
                "seconds": round(compiling.seconds, 2),
                **asdict(Spent(items=compiling.programs)),
            }
        )
    workdir.stages.append(lines)
