"""Batches without packing: every example has a row of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from isara_jax.finetune.data.collate import BatchShape, Row
from isara_jax.finetune.data.training_example import TrainingExample, num_positions

# Lengths are rounded up to a multiple of this: padding costs what tokens cost, and
# every new length costs a compilation.
LENGTH_MULTIPLE = 16


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The rows of every step of a finetuning, and the shape of all of them."""

    steps: tuple[tuple[Row, ...], ...]
    shape: BatchShape


def shuffled_steps(
    examples: Sequence[TrainingExample],
    *,
    examples_per_step: int,
    epochs: int,
    round_index: int,
    seed: int,
) -> Iterator[tuple[TrainingExample, ...]]:
    """Yields the examples of every optimizer step, in a new order every epoch.

    The last step of an epoch has the rest, at least one example.
    """
    for epoch in range(epochs):
        order = np.random.default_rng([seed, round_index, epoch]).permutation(
            len(examples)
        )
        for start in range(0, len(order), examples_per_step):
            chosen = order[start : start + examples_per_step]
            yield tuple(examples[index] for index in chosen)


def pad_steps(
    steps: Sequence[Sequence[TrainingExample]], *, rows: int, micro_batches: int
) -> BatchPlan:
    """Gives every example a row of its own, padded to the longest of all steps."""
    shape = padded_shape(list(chain(*steps)), rows=rows, micro_batches=micro_batches)
    return BatchPlan(
        steps=tuple(tuple((example,) for example in step) for step in steps),
        shape=shape,
    )


def padded_shape(
    examples: Sequence[TrainingExample], *, rows: int, micro_batches: int
) -> BatchShape:
    """Returns the shape that holds the longest example and the longest answer."""
    longest = max(num_positions(example) for example in examples)
    longest_answer = max(len(example.answer_tokens) for example in examples)
    return BatchShape(
        rows=rows,
        micro_batches=micro_batches,
        length=round_up(longest, multiple=LENGTH_MULTIPLE),
        groups=rows,
        answer_length=round_up(longest_answer, multiple=LENGTH_MULTIPLE),
    )


def round_up(length: int, *, multiple: int) -> int:
    """Returns the least multiple that is not below the length."""
    return -(-length // multiple) * multiple
