"""A stop that waits for the work in hand: SIGTERM and Ctrl-C only set a flag."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequested(Exception):
    """The run was asked to stop, and has written what it needs to go on later."""


class StopSignal:
    """Notes SIGTERM and SIGINT while it is entered.

    A loop looks at `requested` or calls `check` where it can stop. A SIGINT after the
    first signal of either kind raises KeyboardInterrupt, for a user who does not want
    to wait. Enter it in the main thread.
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
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and self._requested:
            raise KeyboardInterrupt
        self._requested = True
