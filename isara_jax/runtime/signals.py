"""SIGTERM and Ctrl-C as a flag, so that a run stops where it can resume."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequested(Exception):
    """A stop was asked for, and what is needed to resume has been written."""


class StopSignal:
    """Records SIGTERM and SIGINT while its context is active.

    A loop reads `requested` or calls `check` where it can stop. A SIGINT after the
    first signal raises KeyboardInterrupt, for a user who does not want to wait. Enter
    the context in the main thread.
    """

    def __init__(self) -> None:
        self._requested = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self._requested

    def check(self) -> None:
        """Raises StopRequested once a signal has come."""
        if self._requested:
            raise StopRequested("asked to stop")

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and self._requested:
            raise KeyboardInterrupt
        self._requested = True
