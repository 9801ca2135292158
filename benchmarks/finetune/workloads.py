"""What both sides of `benchmarks.finetune` train on, and how their memory is read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

BATCH = 8
WARM_UP = 1
LORA_RANK, LORA_ALPHA = 8, 16
Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""A prompt's and an answer's tokens."""


def dense_pairs(*, vocabulary: int, steps: int, shrink: int) -> list[list[Pair]]:
    """Returns steps of 8 rows of 256 tokens, of which all but the first are answer."""
    random = np.random.default_rng(0)
    rows, length = max(2, BATCH // shrink), max(4, 256 // shrink)
    drawn = random.integers(10, vocabulary, (steps, rows, length)).tolist()
    return [[((row[0],), tuple(row[1:])) for row in step] for step in drawn]


def question_answer_pairs(*, vocabulary: int, shrink: int) -> list[Pair]:
    """Returns 256 pairs of 20 to 200 tokens, a third to two thirds of them answer."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(max(2 * BATCH, 256 // shrink)):
        length = int(random.integers(20, 201))
        answer = int(length * random.uniform(1 / 3, 2 / 3))
        tokens = random.integers(10, vocabulary, length).tolist()
        pairs.append((tuple(tokens[:-answer]), tuple(tokens[-answer:])))
    return pairs


def shuffled_batches(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Returns the batches of an epoch in a random order."""
    order = np.random.default_rng(1).permutation(len(pairs))
    return [
        [pairs[at] for at in order[start : start + BATCH]]
        for start in range(0, len(order), BATCH)
    ]


def peak_gb() -> float:
    """Returns the most memory that this process has had, in 10^9 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("/proc/self/status has no VmHWM")
