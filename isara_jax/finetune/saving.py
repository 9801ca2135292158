"""The training states of a finetuning on the disk: when, how many, and which is whole.

None of these settings changes a result: what goes on from a state ends bit for bit like
what was never stopped.
"""

import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from absl import logging

from isara_jax.errors import EnvironmentFailure, InputError
from isara_jax.finetune.state import TrainState
from isara_jax.runtime import StopRequested
from isara_jax.runtime.checkpoint import TreeWriter, restore_tree

STATE = "train_state_"
DAMAGED = ".damaged"


@dataclass(frozen=True, kw_only=True)
class SavingConfig:
    """When a finetuning writes its state, besides when it is asked to stop.

    Raises:
      InputError: a value is outside its range.
    """

    train_save_minutes: float = field(
        default=10.0,
        metadata={
            "help": "minutes between two writes of the training state, which go on "
            "beside the training; 0: not by time",
            "operational": True,
        },
    )
    train_save_steps: int = field(
        default=0,
        metadata={
            "help": "steps between two writes of the training state; 0: not by steps. "
            "It is always written when the run is asked to stop",
            "operational": True,
        },
    )
    train_keep_states: int = field(
        default=2,
        metadata={
            "help": "newest training states that stay beside the one being written; "
            "where the newest is damaged, the one before is gone on from",
            "operational": True,
        },
    )

    def __post_init__(self) -> None:
        for name in ("train_save_minutes", "train_save_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"--{name}={getattr(self, name)!r}: must be 0 or more")
        if self.train_keep_states < 1:
            raise InputError(
                f"--train_keep_states={self.train_keep_states!r}: must be at least 1"
            )


class SavedStates:
    """The states in a folder. Leaving it, a finetuning waits for the one in flight."""

    def __init__(self, folder: Path, *, config: SavingConfig):
        self._folder = folder
        self._config = config
        self._writer = TreeWriter()
        self._last = time.monotonic()

    def newest(self, target: TrainState) -> TrainState | None:
        """Reads the newest whole state, into shapes and shardings; None without one.

        A state that is damaged or another tree's is set aside, with a warning.
        """
        self._remove("*.orbax-checkpoint-tmp*")
        for path in reversed(self._whole()):
            try:
                return restore_tree(path, target)
            except InputError as error:
                aside = path.with_name(path.name + DAMAGED)
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                logging.warning(
                    "%s; it is now %s, and the state before it is used, or none",
                    *(error, aside.name),
                )
        return None

    def due(self, step: int) -> bool:
        """Tells whether the state after this step is to be written."""
        steps, minutes = self._config.train_save_steps, self._config.train_save_minutes
        by_steps = bool(steps) and step % steps == 0
        return by_steps or (
            bool(minutes) and time.monotonic() - self._last >= 60 * minutes
        )

    def save(self, state: TrainState) -> None:
        """Begins to write the state, when the one before is written.

        Raises:
          EnvironmentFailure: the disk does not take it, or has not taken the one
            before.
        """
        self._settle()
        path = self._folder / f"{STATE}{int(state.step):06d}"
        self._writer.save(path, state)
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._settle()
        except EnvironmentFailure:
            # A stop says that all is kept; any other error tells more than this one.
            if kind is None or issubclass(kind, StopRequested):
                raise

    def remove(self) -> None:
        """Removes all of them, what is damaged and what a kill left among it."""
        self._remove("*")

    def _settle(self) -> None:
        self._writer.wait()
        for path in self._whole()[: -self._config.train_keep_states]:
            shutil.rmtree(path)

    def _whole(self) -> list[Path]:
        return sorted(self._folder.glob(STATE + "[0-9]" * 6))

    def _remove(self, ending: str) -> None:
        for path in self._folder.glob(STATE + ending):
            shutil.rmtree(path)
