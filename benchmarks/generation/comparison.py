"""A workload's measurements on every side, and the line that tells them."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

OURS = "isara_jax"


@dataclass(kw_only=True)
class Comparison:
    """What was measured of one workload: for each side a value a turn.

    `shares` say how near our own side came to the machine's bound, a value a turn for
    each phase; `left_out` says who was not measured, and why.
    """

    workload: str
    measure: str
    values: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(
        self, side: str, value: float, *, shares: Mapping[str, float] | None = None
    ) -> None:
        """Adds a turn of a side."""
        self.values.setdefault(side, []).append(value)
        for phase, share in (shares or {}).items():
            self.shares.setdefault(phase, []).append(share)

    def join(self, other: "Comparison") -> None:
        """Adds what was measured of the same workload elsewhere."""
        self.measure = other.measure
        self.values |= other.values
        self.shares |= other.shares

    @property
    def line(self) -> str:
        """The medians, and how many times faster than each peer we are."""
        unit = "s" if self.measure == "seconds" else "tok/s"
        medians = {
            side: statistics.median(values) for side, values in self.values.items()
        }
        mine = medians.pop(OURS)
        own = [f"{OURS} {mine:.1f} {unit}"]
        for phase, shares in self.shares.items():
            if self.measure in (phase, "seconds"):
                own.append(f"{statistics.median(shares):.0%} of the {phase} bound")
        parts = [f"{self.workload}: {', '.join(own)}"]
        for side, value in medians.items():
            ratio = value / mine if unit == "s" else mine / value
            parts.append(f"{side} {value:.1f} {unit}, ratio {ratio:.2f}")
        return "; ".join([*parts, *(f"left out: {why}" for why in self.left_out)])
