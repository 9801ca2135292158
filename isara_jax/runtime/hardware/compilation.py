"""Compiled programs: kept on the disk for the next run, counted and timed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """How many programs were compiled, or fetched from the disk, and in what time."""

    programs: int
    seconds: float

    def __sub__(self, earlier: "Compiled") -> "Compiled":
        return Compiled(
            programs=self.programs - earlier.programs,
            seconds=self.seconds - earlier.seconds,
        )


_so_far = {"programs": 0, "seconds": 0.0}


def enable_compilation_cache(folder: str) -> None:
    """Turns JAX's persistent compilation cache on; an empty name leaves it off."""
    if not folder:
        return
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def compiled() -> Compiled:
    """Returns what the process has compiled so far."""
    return Compiled(
        programs=int(_so_far["programs"]), seconds=float(_so_far["seconds"])
    )


def _count(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _so_far["programs"] += 1
        _so_far["seconds"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_count)
