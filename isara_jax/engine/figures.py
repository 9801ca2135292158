"""What the engine did and how fast: counts and seconds, added up over calls."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from isara_jax.engine.path import Path

_COMPILED = {"count": 0, "seconds": 0.0}


@dataclass(kw_only=True)
class Figures:
    """Counts of a stage.

    `run_tokens` of prompts were computed, `reused_tokens` were there already. Of the
    `slot_steps`, one a slot and decoding step, `new_tokens` gave a token. The seconds
    of compilations are in none of the others.
    """

    run_tokens: int = 0
    reused_tokens: int = 0
    prefill_seconds: float = 0.0
    new_tokens: int = 0
    decode_seconds: float = 0.0
    slot_steps: int = 0
    compilations: int = 0
    compile_seconds: float = 0.0

    @contextmanager
    def prefilling(self, path: Path) -> Iterator[None]:
        """Times a prompt's way into a slot, and counts its tokens."""
        run, reused = path.run_tokens, path.reused_tokens
        with self._timed("prefill_seconds"):
            yield
            jax.block_until_ready(path.cache.blocks)
        self.run_tokens += path.run_tokens - run
        self.reused_tokens += path.reused_tokens - reused

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Times a stretch of decoding, whose results must be waited for in it."""
        with self._timed("decode_seconds"):
            yield

    def count_new(self, new: np.ndarray) -> None:
        """Adds the tokens that a stretch gave each slot."""
        self.new_tokens += int(new.sum())
        self.slot_steps += int(new.max(initial=0)) * new.size

    @contextmanager
    def _timed(self, seconds: str) -> Iterator[None]:
        begun, compiled = time.perf_counter(), dict(_COMPILED)
        yield
        compiling = _COMPILED["seconds"] - compiled["seconds"]
        self.compilations += int(_COMPILED["count"] - compiled["count"])
        self.compile_seconds += compiling
        taken = max(0.0, time.perf_counter() - begun - compiling)
        setattr(self, seconds, getattr(self, seconds) + taken)

    def record(self) -> dict[str, Any]:
        """Returns the counts, and the rates that follow from them."""
        return {
            **asdict(self),
            "prefill_tokens_per_second": _ratio(self.run_tokens, self.prefill_seconds),
            "decode_tokens_per_second": _ratio(self.new_tokens, self.decode_seconds),
            "slot_occupancy": _ratio(self.new_tokens, self.slot_steps),
            "prefix_hit_rate": _ratio(
                self.reused_tokens, self.reused_tokens + self.run_tokens
            ),
        }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _on_duration(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _COMPILED["count"] += 1
        _COMPILED["seconds"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_on_duration)
