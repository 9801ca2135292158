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
class StageTotals:
    """How many items and tokens a stage processed."""

    items: int = 0
    tokens: int = 0

    def add_samples(self, records: Records) -> None:
        """Adds the samples of a records file, with the tokens of their prompts."""
        samples = records.read()
        self.items += len(samples)
        self.tokens += sum(s["prompt_tokens"] + s["new_tokens"] for s in samples)


@contextmanager
def time_stage(
    workdir: Workdir, folder: RoundFolder, stage: str
) -> Iterator[StageTotals]:
    """Adds a line to stages.jsonl when a stage first ends; a stop leaves none.

    The block sets the totals. Compilation is a stage of its own, with a line for every
    stage that compiled programs.
    """
    totals, start, compiled_before = StageTotals(), time.monotonic(), compiled()
    yield totals
    name = f"{folder.path.relative_to(workdir.path).as_posix()}/{stage}"
    if any(line["stage"] == name for line in workdir.stages.read()):
        return
    compiling = compiled() - compiled_before
    seconds = max(0.0, time.monotonic() - start - compiling.seconds)
    lines = [{"stage": name, "seconds": round(seconds, 2), **asdict(totals)}]
    if compiling.programs:
        lines.append(
            {
                "stage": COMPILING,
                "seconds": round(compiling.seconds, 2),
                **asdict(StageTotals(items=compiling.programs)),
            }
        )
    workdir.stages.append(lines)
