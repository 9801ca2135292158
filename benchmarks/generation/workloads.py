"""The workloads that `benchmarks.generation` measures, and what a measurement is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the package writes, where it does not decode greedily to the full length.

    These are what its engine takes; peers read `sampling_params` and what ends a text.
    """

    sampling_params: Any
    stop_criteria: Any
    key: Any
    prompts: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Prompts and how many tokens follow each.

    The first `shared` tokens of the prompts are equal. A peer that pads its batches
    runs `rows` prompts at once; one that refills its slots has the engine's number.
    """

    prompts: Sequence[Sequence[int]]
    new_tokens: Sequence[int]
    rows: int
    measure: str
    shared: int = 0
    rules: Rules | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of a workload: as a whole, of its prompts, and after them.

    `decoded_tokens` are those that `decode_seconds` gave: where the first token comes
    out of the prompt's own pass it is none of them.
    """

    seconds: float
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decoded_tokens: int = 0


# Runs a workload and times it.
Runner = Callable[[Workload], Timing]


class NotMeasured(Exception):
    """A peer has no part in a workload; the text says why."""


def value_of(workload: Workload, timing: Timing) -> float:
    """Returns what the workload measures: tokens a second, or seconds."""
    if workload.measure == "prefill":
        return sum(map(len, workload.prompts)) / timing.prefill_seconds
    if workload.measure == "decode":
        return timing.decoded_tokens / timing.decode_seconds
    return timing.seconds


# Rows and tokens of prompts in which every row is alike, and new tokens.
UNIFORM = {
    "decode": (32, 512, 64),
    "decode1": (1, 512, 64),
    # While 64 tokens are written, the context is of 1,024 tokens in the mean.
    "decode64": (64, 992, 64),
    "prefill": (8, 512, 2),
}
NAMES = (*UNIFORM, "shared", "mixed")


def make_workload(name: str, *, vocabulary: int, shrink: int = 1) -> Workload:
    """Returns a workload of random token ids; `shrink` divides rows and tokens."""
    random = np.random.default_rng(0)

    def text(length: int) -> list[int]:
        return random.integers(10, vocabulary, max(1, length // shrink)).tolist()

    if name == "mixed":
        return _mixed(random, text, shrink=shrink)
    count, length, new = UNIFORM.get(name, (32, 760, 64))
    count = max(min(2, count), count // shrink)
    beginning = text(700) if name == "shared" else []
    rest = length - 700 if name == "shared" else length
    return Workload(
        prompts=[beginning + text(rest) for _ in range(count)],
        new_tokens=[max(2, new // shrink)] * count,
        rows=count,
        measure={"shared": "seconds", "prefill": "prefill"}.get(name, "decode"),
        shared=len(beginning),
    )


def _mixed(
    random: np.random.Generator, text: Callable[[int], list[int]], *, shrink: int
) -> Workload:
    count = max(2, 64 // shrink)
    lengths = random.integers(100, 701, count)
    new_tokens = random.integers(8, 129, count)
    return Workload(
        prompts=[text(int(length)) for length in lengths],
        new_tokens=[max(2, int(new) // shrink) for new in new_tokens],
        rows=16,
        measure="seconds",
    )
