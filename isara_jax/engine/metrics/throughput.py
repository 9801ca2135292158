"""What the engine did and how fast: counts and seconds of a step, and their sums."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from isara_jax.engine.metrics.roofline import (
    Cost,
    ModelSizes,
    decode_cost,
    prefill_cost,
)
from isara_jax.engine.prefill import Prefix
from isara_jax.runtime.hardware import PeakRates, compiled

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The seconds that something took, without those of the programs it compiled."""

    seconds: float
    compilations: int
    compile_seconds: float


def timed(run: Callable[[], T]) -> tuple[T, Timing]:
    """Runs something that waits for its results; returns them and what they took."""
    begun, before = time.perf_counter(), compiled()
    result = run()
    compiling = compiled() - before
    seconds = max(0.0, time.perf_counter() - begun - compiling.seconds)
    return result, Timing(
        seconds=seconds,
        compilations=compiling.programs,
        compile_seconds=compiling.seconds,
    )


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one step of the engine did: a prompt's prefill, or some decode steps.

    Attributes:
      computed_tokens: tokens of prompts whose keys and values were computed.
      reused_tokens: those that the prefix cache held already.
      new_tokens: the tokens that were sampled.
      slot_steps: one a slot and decode step; `new_tokens` of them gave a token.
      prefill_seconds: without compilation, as `decode_seconds`.
      prefill_costs: lower bounds on what each prefill moves and computes.
      decode_costs: the same for decode steps.
    """

    computed_tokens: int = 0
    reused_tokens: int = 0
    prefill_seconds: float = 0.0
    new_tokens: int = 0
    decode_seconds: float = 0.0
    slot_steps: int = 0
    compilations: int = 0
    compile_seconds: float = 0.0
    prefill_costs: Sequence[Cost] = ()
    decode_costs: Sequence[Cost] = ()


def prefill_metrics(
    prefix: Prefix, timing: Timing, *, sizes: ModelSizes
) -> StepMetrics:
    """Returns the metrics of one prompt's prefill and its insertion into a slot."""
    start, end = prefix.length - prefix.computed_tokens, prefix.length
    costs = (prefill_cost(sizes, start=start, end=end),) if end > start else ()
    return StepMetrics(
        computed_tokens=prefix.computed_tokens,
        reused_tokens=prefix.reused_tokens,
        prefill_seconds=timing.seconds,
        compilations=timing.compilations,
        compile_seconds=timing.compile_seconds,
        prefill_costs=costs,
    )


def decode_metrics(
    new: np.ndarray,
    timing: Timing,
    *,
    lengths: np.ndarray,
    shared_len: int,
    beams: int = 1,
    sizes: ModelSizes,
) -> StepMetrics:
    """Returns the metrics of decode steps that gave each slot `new` tokens.

    `lengths` are the slots' positions before, the first `shared_len` of them shared.
    """
    return StepMetrics(
        new_tokens=beams * int(new.sum()),
        slot_steps=beams * int(new.max(initial=0)) * new.size,
        decode_seconds=timing.seconds,
        compilations=timing.compilations,
        compile_seconds=timing.compile_seconds,
        decode_costs=(
            decode_cost(
                sizes, lengths=lengths, new=new, shared_len=shared_len, beams=beams
            ),
        ),
    )


@dataclass(kw_only=True)
class EngineMetrics:
    """The sums of a stage's `StepMetrics`, whose attributes it has."""

    computed_tokens: int = 0
    reused_tokens: int = 0
    prefill_seconds: float = 0.0
    new_tokens: int = 0
    decode_seconds: float = 0.0
    slot_steps: int = 0
    compilations: int = 0
    compile_seconds: float = 0.0
    prefill_costs: list[Cost] = field(default_factory=list)
    decode_costs: list[Cost] = field(default_factory=list)

    def add(self, step: StepMetrics) -> None:
        """Adds what a step did."""
        for counted in fields(self):
            total, more = getattr(self, counted.name), getattr(step, counted.name)
            if isinstance(total, list):
                total.extend(more)
            else:
                setattr(self, counted.name, total + more)

    def record(self, rates: PeakRates) -> dict[str, Any]:
        """Returns the counts, and the rates that follow from them.

        A share of a bound is the time that the machine needs at least, for every
        prefill and all decode steps, by the time that they took. Of the prompts' tokens
        `run_tokens` were computed.
        """
        counts = asdict(self)
        del counts["prefill_costs"], counts["decode_costs"]
        computed = counts.pop("computed_tokens")
        return {
            "run_tokens": computed,
            **counts,
            "prefill_tokens_per_second": _ratio(computed, self.prefill_seconds),
            "decode_tokens_per_second": _ratio(self.new_tokens, self.decode_seconds),
            "slot_occupancy": _ratio(self.new_tokens, self.slot_steps),
            "prefix_hit_rate": _ratio(
                self.reused_tokens, self.reused_tokens + computed
            ),
            "prefill_share_of_bound": _ratio(
                _bound(self.prefill_costs, rates), self.prefill_seconds
            ),
            "decode_share_of_bound": _ratio(
                _bound(self.decode_costs, rates), self.decode_seconds
            ),
            **{f"machine_{name}": rate for name, rate in asdict(rates).items()},
        }


def _bound(costs: Sequence[Cost], rates: PeakRates) -> float:
    return sum(rates.bound(bytes=cost.bytes, flops=cost.flops) for cost in costs)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
