"""A disk's failures and damaged files: one sentence in place of Orbax's many."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from isara_jax.errors import EnvironmentFailure, InputError, first_line


@contextmanager
def writing(path: Path, *, again: str) -> Iterator[None]:
    """Says a disk's failure in one sentence, which ends in what to do.

    Raises:
      EnvironmentFailure: the disk does not take it.
    """
    try:
        with silence_orbax():
            yield
    except (EnvironmentFailure, jax.errors.JaxRuntimeError):
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise EnvironmentFailure(
            f"{path}: cannot be written ({first_line(error).rpartition(': ')[2]}): "
            f"{again}"
        ) from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Says in one sentence that a checkpoint is damaged.

    Raises:
      InputError: it is.
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
    """Keeps off the terminal what Orbax's threads say; what fails is raised as well."""
    with _quiet(), _one_failure():
        yield


@contextmanager
def _one_failure() -> Iterator[None]:
    """Lets the first failing read or write of several speak for all.

    Orbax closes its event loop at the first one. Each of the others finds the loop
    closed, at any time after, and would print a traceback of its own: what drops those
    is taken away only where nothing failed.
    """
    shown = sys.unraisablehook

    def but_late_ones(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    def is_no_late_one(record: logging.LogRecord) -> bool:
        return "exception was never retrieved" not in record.getMessage()

    sys.unraisablehook = but_late_ones
    logger = logging.getLogger("asyncio")
    logger.addFilter(is_no_late_one)
    yield
    logger.removeFilter(is_no_late_one)
    sys.unraisablehook = shown


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's log, with the tracebacks of its threads, off the terminal."""

    def of_others(record: logging.LogRecord) -> bool:
        return "orbax" not in Path(record.pathname).parts

    logger = logging.getLogger("absl")
    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)
