"""Checkpoints of a finetuning's training state.

None of these settings changes a result: a finetuning that resumes from a state ends bit
for bit like one that was never stopped.
"""

import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from absl import logging

from isara_jax.errors import EnvironmentFailure, FieldError, InputError
from isara_jax.finetune.state import TrainState
from isara_jax.runtime import StopRequested
from isara_jax.runtime.checkpoint import TreeWriter, restore_tree

PREFIX = "train_state_"
DAMAGED = ".damaged"


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a finetuning writes its state, and how many states it keeps.

    Raises:
      FieldError: a value is outside its range.
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
                raise FieldError(name, getattr(self, name), "must be 0 or more")
        if self.train_keep_states < 1:
            raise FieldError(
                "train_keep_states", self.train_keep_states, "must be at least 1"
            )


class StateCheckpoints:
    """The states in a folder; the end of its context waits for the one in flight."""

    def __init__(self, folder: Path, *, config: CheckpointConfig):
        self._folder = folder
        self._config = config
        self._writer = TreeWriter()
        self._last_save = time.monotonic()

    def restore_latest(self, target: TrainState) -> TrainState | None:
        """Restores the latest complete state, or returns None if there is none.

        A state that is damaged or of another structure is renamed, with a warning, and
        the one before it is restored.

        Args:
          target: the abstract state, with shardings.
        """
        self._delete("*.orbax-checkpoint-tmp*")
        for path in reversed(self._complete()):
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

    def should_save(self, step: int) -> bool:
        """Tells whether the state after this step is due to be written."""
        steps, minutes = self._config.train_save_steps, self._config.train_save_minutes
        by_steps = bool(steps) and step % steps == 0
        return by_steps or (
            bool(minutes) and time.monotonic() - self._last_save >= 60 * minutes
        )

    def save(self, state: TrainState) -> None:
        """Starts to write the state, after the previous one is written.

        Raises:
          EnvironmentFailure: the disk does not take it, or has not taken the one
            before.
        """
        self._wait_and_prune()
        path = self._folder / f"{PREFIX}{int(state.step):06d}"
        self._writer.save(path, state)
        self._last_save = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._wait_and_prune()
        except EnvironmentFailure:
            # A stop promises that the state is saved. Any other error says more.
            if kind is None or issubclass(kind, StopRequested):
                raise

    def delete_all(self) -> None:
        """Deletes all states, damaged and incomplete ones as well."""
        self._delete("*")

    def _wait_and_prune(self) -> None:
        self._writer.wait()
        for path in self._complete()[: -self._config.train_keep_states]:
            shutil.rmtree(path)

    def _complete(self) -> list[Path]:
        return sorted(self._folder.glob(PREFIX + "[0-9]" * 6))

    def _delete(self, ending: str) -> None:
        for path in self._folder.glob(PREFIX + ending):
            shutil.rmtree(path)
