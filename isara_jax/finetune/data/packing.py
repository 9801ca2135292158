"""Packing: several examples in a row, so that little of it is padding.

It changes the layout only. A step has as many examples as without it, `train_batch`
times `accumulation`, and its gradient is the mean over their answers' tokens. No
example attends to another: each is a segment of its own with positions from 0. The
order differs, since all steps share one shape and are therefore drawn to have about
equally many tokens.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from isara_jax.finetune.data.collate import BatchShape, Row
from isara_jax.finetune.data.padding import BatchPlan, round_up
from isara_jax.finetune.data.training_example import TrainingExample, num_positions

# The length of rows that is chosen automatically is at most this, or that of the
# longest example.
MAX_ROW_LENGTH = 2048
# At about this length attention costs as much as the rest of a row: of a 135M model on
# CPU, 2,048 tokens take 1.09 times as long in rows of 512 as in rows of 128, and 1.7
# times as long in one row of 2,048.
ATTENTION_LENGTH = 3000
# The length of rows is chosen by so many examples.
SAMPLED_EXAMPLES = 2048
# The number of label positions is a multiple of this, so that rounds with similar
# examples share a compiled step.
LABEL_MULTIPLE = 64


def balanced_steps(
    examples: Sequence[TrainingExample],
    *,
    examples_per_step: int,
    epochs: int,
    round_index: int,
    seed: int,
) -> Iterator[tuple[TrainingExample, ...]]:
    """Yields the examples of every optimizer step, in a new order every epoch.

    The examples are sorted by length and cut into as many strata as a step has
    examples. Every step draws one example of each stratum. The last step of an epoch
    has the rest: it draws of some strata only.
    """
    steps = -(-len(examples) // examples_per_step)
    in_last = len(examples) - (steps - 1) * examples_per_step
    for epoch in range(epochs):
        random = np.random.default_rng([seed, round_index, epoch])
        shuffled = [examples[index] for index in random.permutation(len(examples))]
        by_length = iter(sorted(shuffled, key=len))
        last_draws = random.permutation(examples_per_step) < in_last
        drawn: list[list[TrainingExample]] = [[] for _ in range(steps)]
        for last_draws_too in last_draws:
            stratum = [next(by_length) for _ in range(steps - 1 + int(last_draws_too))]
            order = random.permutation(len(stratum))
            for step, index in zip(drawn, order, strict=False):
                step.append(stratum[index])
        yield from map(tuple, drawn)


def pack_steps(
    steps: Sequence[Sequence[TrainingExample]],
    *,
    micro_batches: int,
    groups: int,
    length: int,
    multiple: int,
) -> BatchPlan:
    """Packs every step into the same number of rows of one length.

    Args:
      steps: the examples of every step.
      micro_batches: micro-batches of a step.
      groups: groups of rows in a micro-batch, one for each shard of the `data` axis.
      length: positions of a row; raised to the longest example's, and 0 chooses the
        length of least cost.
      multiple: the chosen length is a multiple of this.
    """
    longest = max(num_positions(example) for example in chain(*steps))
    unit = micro_batches * groups
    if not length:
        length = _cheapest_length(steps, longest=longest, unit=unit, multiple=multiple)
    length = max(length, longest)
    packed = [pack(step, length=length) for step in steps]
    rows = round_up(max(map(len, packed)), multiple=unit) // micro_batches
    shape = BatchShape(
        rows=rows,
        micro_batches=micro_batches,
        length=length,
        groups=groups,
        answer_length=0,
    )
    most = max(_max_labels(step, shape=shape) for step in packed)
    return BatchPlan(
        steps=tuple(map(tuple, packed)),
        shape=dataclasses.replace(
            shape, answer_length=round_up(most, multiple=LABEL_MULTIPLE)
        ),
    )


def pack(examples: Sequence[TrainingExample], *, length: int) -> list[Row]:
    """Packs examples into rows of `length` positions by best fit decreasing.

    The longest examples come first. Each goes into the row that it leaves the fewest
    free positions, or into a new row.
    """
    rows: list[list[TrainingExample]] = []
    free: list[int] = []
    for example in sorted(examples, key=num_positions, reverse=True):
        need = num_positions(example)
        fitting = [row for row in range(len(rows)) if free[row] >= need]
        best = min(fitting, key=free.__getitem__, default=len(rows))
        if best == len(rows):
            rows.append([])
            free.append(length)
        rows[best].append(example)
        free[best] -= need
    return [tuple(row) for row in rows]


def _cheapest_length(
    steps: Sequence[Sequence[TrainingExample]],
    *,
    longest: int,
    unit: int,
    multiple: int,
) -> int:
    """Returns the row length of least cost: positions, and attention within rows."""
    sampled = steps[: max(1, SAMPLED_EXAMPLES // len(steps[0]))]
    shortest = round_up(longest, multiple=multiple)

    def cost(length: int) -> float:
        rows = max(len(pack(step, length=length)) for step in sampled)
        return round_up(rows, multiple=unit) * length * (1 + length / ATTENTION_LENGTH)

    return min(range(shortest, max(shortest, MAX_ROW_LENGTH) + 1, multiple), key=cost)


def _max_labels(rows: Sequence[Row], *, shape: BatchShape) -> int:
    """Returns the most label positions of a group in a step."""
    count = np.zeros((shape.micro_batches, shape.groups), int)
    for number, row in enumerate(rows):
        index, micro_batch = divmod(number, shape.micro_batches)
        group = index // (shape.rows // shape.groups)
        count[micro_batch, group] += sum(len(one.answer_tokens) for one in row)
    return int(count.max())
