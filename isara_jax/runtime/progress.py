"""A stage's progress: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0

Advance = Callable[[int], None]


@contextmanager
def progress(
    stage: str, *, total: int, done: int, unit: str, out: TextIO | None = None
) -> Iterator[Advance]:
    """Shows the rate of a stage and the time that is left.

    Args:
      stage: its name.
      total: items of the stage.
      done: items that an earlier run of the stage has finished.
      unit: what an item is called, in the plural.
      out: a stream; stderr if None.

    Yields:
      A function to call with the number of items that were finished.
    """
    out = out or sys.stderr
    if out.isatty():
        bar = tqdm(
            total=total, initial=done, desc=stage, unit=f" {unit}", file=out, leave=True
        )
        with bar:
            yield lambda count: _advance_bar(bar, count)
        return
    lines = _Lines(stage, total=total, done=done, unit=unit, out=out)
    yield lines.advance
    lines.end()


def log(text: str, out: TextIO | None = None) -> None:
    """Prints a line without breaking a progress bar."""
    tqdm.write(text, file=out or sys.stderr)
    (out or sys.stderr).flush()


def _advance_bar(bar: tqdm, count: int) -> None:
    bar.update(count)


class _Lines:
    """Prints a line at the start, every `SECONDS_BETWEEN_LINES`, and at the end."""

    def __init__(self, stage: str, *, total: int, done: int, unit: str, out: TextIO):
        self.stage, self.total, self.unit, self.out = stage, total, unit, out
        self.first = self.done = done
        self.began = self.printed = time.monotonic()
        self._print(f"{stage}: {done} of {total} {unit}")

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.printed < SECONDS_BETWEEN_LINES or self.done >= self.total:
            return
        self.printed = now
        rate = (self.done - self.first) / (now - self.began)
        left = (self.total - self.done) / rate if rate else float("inf")
        self._print(
            f"{self.stage}: {self.done} of {self.total} {self.unit}, "
            f"{rate:.2f} a second, {format_duration(left)} left"
        )

    def end(self) -> None:
        seconds = time.monotonic() - self.began
        rate = (self.done - self.first) / seconds if seconds else 0.0
        self._print(
            f"{self.stage}: {self.done} of {self.total} {self.unit} in "
            f"{format_duration(seconds)}, {rate:.2f} a second"
        )

    def _print(self, line: str) -> None:
        print(line, file=self.out, flush=True)


def format_duration(seconds: float) -> str:
    """Formats seconds as 1:02:03 or 2:03, and infinity as a question mark."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
