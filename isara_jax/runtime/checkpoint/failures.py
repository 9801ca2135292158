"""Orbax's errors as one sentence: a disk that fails, or a damaged checkpoint."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from isara_jax.errors import EnvironmentFailure, InputError, first_line


@contextmanager
def write_errors(path: Path, *, advice: str) -> Iterator[None]:
    """Turns the failure of a write into one sentence, which ends with the advice.

    Raises:
      EnvironmentFailure: the write failed.
    """
    try:
        with silence_orbax():
            yield
    except (EnvironmentFailure, jax.errors.JaxRuntimeError):
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise EnvironmentFailure(
            f"{path}: cannot be written ({first_line(error).rpartition(': ')[2]}): "
            f"{advice}"
        ) from None


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turns the failure of a read into one sentence.

    Raises:
      InputError: the checkpoint is damaged.
    """
    try:
        with silence_orbax():
            yield
    except (InputError, MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # noqa: BLE001 - Orbax raises it bare for damaged arrays
        raise InputError(
            f"{path}: a damaged checkpoint ({first_line(error):.200})"
        ) from None


@contextmanager
def silence_orbax() -> Iterator[None]:
    """Hides what Orbax's threads log; what fails is raised as well."""
    with _without_orbax_log(), _first_failure_only():
        yield


@contextmanager
def _first_failure_only() -> Iterator[None]:
    """Reports the first failing read or write of several only.

    Orbax closes its event loop after the first failure. Each of the others then finds
    the loop closed, at any later time, and would print a traceback. So the filters stay
    in place after a failure, and are removed without one.
    """
    original = sys.unraisablehook

    def hide_closed_loop(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            original(unraisable)

    def is_no_late_failure(record: logging.LogRecord) -> bool:
        return "exception was never retrieved" not in record.getMessage()

    sys.unraisablehook = hide_closed_loop
    logger = logging.getLogger("asyncio")
    logger.addFilter(is_no_late_failure)
    yield
    logger.removeFilter(is_no_late_failure)
    sys.unraisablehook = original


@contextmanager
def _without_orbax_log() -> Iterator[None]:
    """Hides Orbax's log, with the tracebacks of its threads."""

    def is_of_others(record: logging.LogRecord) -> bool:
        return "orbax" not in Path(record.pathname).parts

    logger = logging.getLogger("absl")
    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)
