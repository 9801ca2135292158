"""Statistics of the rounds: the filter's funnel, keep rate, novelty, diversity."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from isara_jax.report.run_data import Round, Sample, Stage


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of pairs, and its share of the pairs that the round generated."""

    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class FunnelRow:
    """The pairs generated, rejected by one rule, or kept: one cell for each round."""

    label: str
    kind: Literal["generated", "rejected", "kept"]
    cells: tuple[Cell, ...]


def funnel(rounds: Sequence[Round]) -> tuple[FunnelRow, ...]:
    """Returns the rows from generated to kept; the rule that rejected most is first."""
    done = filtered(rounds)
    rejected = [Counter(sample.rule for sample in one.rejected) for one in done]
    totals = sum(rejected, Counter[str]())
    kept = [len(one.kept) for one in done]
    return (
        _row("generated", "generated", done, [one.filtered for one in done]),
        *(
            _row(rule, "rejected", done, [counts[rule] for counts in rejected])
            for rule, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        ),
        _row("kept", "kept", done, kept),
    )


def _row(
    label: str,
    kind: Literal["generated", "rejected", "kept"],
    rounds: Sequence[Round],
    counts: Sequence[int],
) -> FunnelRow:
    cells = tuple(
        Cell(count=count, share=count / one.filtered)
        for one, count in zip(rounds, counts, strict=True)
    )
    return FunnelRow(label=label, kind=kind, cells=cells)


def filtered(rounds: Sequence[Round]) -> list[Round]:
    """Returns the rounds whose filter has run."""
    return [one for one in rounds if one.filtered]


def keep_rate(one: Round) -> float:
    """Returns kept / generated."""
    return len(one.kept) / one.filtered


def novelty(kept: Sequence[Sample]) -> float | None:
    """Returns the mean of 1 - cosine similarity to the nearest seed, if it is known."""
    known = similarities(kept)
    return 1 - sum(known) / len(known) if known else None


def similarities(kept: Sequence[Sample]) -> list[float]:
    """Returns the known cosine similarities to the nearest seed."""
    values = (sample.nearest_seed_similarity for sample in kept)
    return [value for value in values if value is not None and math.isfinite(value)]


def diversity(kept: Sequence[Sample]) -> float | None:
    """Returns different word pairs / word pairs of the kept questions, if any."""
    pairs = [
        pair
        for words in (sample.question.casefold().split() for sample in kept)
        for pair in itertools.pairwise(words)
    ]
    return len(set(pairs)) / len(pairs) if pairs else None


def seconds_of(stages: Sequence[Stage]) -> float:
    """Returns the time of all stages."""
    return sum(stage.seconds for stage in stages)
