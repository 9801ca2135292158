"""JAX's persistent compilation cache, and a count of what was compiled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax


@dataclass(frozen=True, kw_only=True)
class CompilationStats:
    """The number of programs compiled or read from the cache, and the seconds."""

    programs: int
    seconds: float

    def __sub__(self, earlier: "CompilationStats") -> "CompilationStats":
        return CompilationStats(
            programs=self.programs - earlier.programs,
            seconds=self.seconds - earlier.seconds,
        )


_so_far = {"programs": 0, "seconds": 0.0}


def enable_compilation_cache(folder: str) -> None:
    """Enables the cache in a folder; an empty name leaves it disabled."""
    if not folder:
        return
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def compiled() -> CompilationStats:
    """Returns the statistics of the process so far."""
    return CompilationStats(
        programs=int(_so_far["programs"]), seconds=float(_so_far["seconds"])
    )


def _count(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _so_far["programs"] += 1
        _so_far["seconds"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_count)
