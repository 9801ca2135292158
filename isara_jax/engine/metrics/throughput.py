"""What the engine did and how fast: counts and seconds, added up over calls."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

from isara_jax.engine.metrics.roofline import (
    Cost,
    ModelSizes,
    decode_cost,
    prefill_cost,
)
from isara_jax.engine.prefill import PrefixCache
from isara_jax.runtime.hardware import Rates, compiled


@dataclass(kw_only=True)
class EngineMetrics:
    """Counts of a stage.

    `run_tokens` of prompts were computed, `reused_tokens` were there already. Of the
    `slot_steps`, one a slot and decoding step, `new_tokens` gave a token. The seconds
    of compilations are in none of the others. The costs are what the prompts and the
    stretches of decoding took at least.
    """

    run_tokens: int = 0
    reused_tokens: int = 0
    prefill_seconds: float = 0.0
    new_tokens: int = 0
    decode_seconds: float = 0.0
    slot_steps: int = 0
    compilations: int = 0
    compile_seconds: float = 0.0
    prefill_costs: list[Cost] = field(default_factory=list)
    decode_costs: list[Cost] = field(default_factory=list)

    @contextmanager
    def time_prefill(self, path: PrefixCache, sizes: ModelSizes) -> Iterator[None]:
        """Times a prompt's way into a slot, and counts its tokens."""
        run, reused = path.run_tokens, path.reused_tokens
        with self._timed("prefill_seconds"):
            yield
            jax.block_until_ready(path.cache.blocks)
        self.run_tokens += path.run_tokens - run
        self.reused_tokens += path.reused_tokens - reused
        if path.run_tokens > run:
            end = len(path.tokens)
            start = end - (path.run_tokens - run)
            self.prefill_costs.append(prefill_cost(sizes, start=start, end=end))

    @contextmanager
    def time_decode(self) -> Iterator[None]:
        """Times a stretch of decoding, whose results must be waited for in it."""
        with self._timed("decode_seconds"):
            yield

    def count_new(
        self, new: np.ndarray, *, lengths: np.ndarray, shared: int, sizes: ModelSizes
    ) -> None:
        """Adds the tokens that a stretch gave each slot.

        `lengths` are the slots' positions before it, the first `shared` of them common.
        """
        self.new_tokens += int(new.sum())
        self.slot_steps += int(new.max(initial=0)) * new.size
        self.decode_costs.append(
            decode_cost(sizes, lengths=lengths, new=new, shared=shared)
        )

    @contextmanager
    def _timed(self, seconds: str) -> Iterator[None]:
        begun, before = time.perf_counter(), compiled()
        yield
        compiling = compiled() - before
        self.compilations += compiling.programs
        self.compile_seconds += compiling.seconds
        taken = max(0.0, time.perf_counter() - begun - compiling.seconds)
        setattr(self, seconds, getattr(self, seconds) + taken)

    def record(self, rates: Rates) -> dict[str, Any]:
        """Returns the counts, and the rates that follow from them.

        A share of a bound is the time that the machine needs at least, for every prompt
        and every stretch of decoding, by the time that they took.
        """
        counts = asdict(self)
        del counts["prefill_costs"], counts["decode_costs"]
        return {
            **counts,
            "prefill_tokens_per_second": _ratio(self.run_tokens, self.prefill_seconds),
            "decode_tokens_per_second": _ratio(self.new_tokens, self.decode_seconds),
            "slot_occupancy": _ratio(self.new_tokens, self.slot_steps),
            "prefix_hit_rate": _ratio(
                self.reused_tokens, self.reused_tokens + self.run_tokens
            ),
            "prefill_share_of_bound": _ratio(
                _bound(self.prefill_costs, rates), self.prefill_seconds
            ),
            "decode_share_of_bound": _ratio(
                _bound(self.decode_costs, rates), self.decode_seconds
            ),
            **{f"machine_{name}": rate for name, rate in asdict(rates).items()},
        }


def _bound(costs: Sequence[Cost], rates: Rates) -> float:
    return sum(rates.bound(bytes=cost.bytes, flops=cost.flops) for cost in costs)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
