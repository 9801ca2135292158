"""Several examples a row: what is computed is tokens, not padding.

Packing is a layout. A step has the same number of examples as without it, --train_batch
times --accumulation, and its gradient is the mean over their answers' tokens; none sees
another, as each is a segment of its own with positions from 0. Only the order differs:
all steps share one shape, so they are drawn to have about equally many tokens.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from isara_jax.finetune.data.batches import (
    BatchShape,
    Plan,
    Row,
    TrainingExample,
    positions_of,
    rounded_up,
)

# Without a length of one's own, rows are at most so long, or as the longest example.
MOST_POSITIONS = 2048
# A row's attention costs as much as all else at about this length: of a 135M model on
# CPU, 2,048 tokens take 1.09 times as long in rows of 512 as in rows of 128, and 1.7
# times in one of 2,048.
QUADRATIC = 3000
# How many examples decide on the length of rows.
DECIDING = 2048
# Places for positions with a loss come in so many, so that rounds of like examples
# share a compiled step.
ANSWER_STEP = 64


def balanced_steps(
    examples: Sequence[TrainingExample],
    *,
    examples_a_step: int,
    epochs: int,
    round_index: int,
    seed: int,
) -> Iterator[tuple[TrainingExample, ...]]:
    """Yields the examples of every optimizer step, a new order every epoch.

    Sorted by length, the examples are cut into as many parts as a step has examples,
    and every step draws one of each part. An epoch's last step holds what is left.
    """
    steps = -(-len(examples) // examples_a_step)
    in_last = len(examples) - (steps - 1) * examples_a_step
    for epoch in range(epochs):
        random = np.random.default_rng([seed, round_index, epoch])
        shuffled = [examples[at] for at in random.permutation(len(examples))]
        by_length = iter(sorted(shuffled, key=len))
        gives_to_last = random.permutation(examples_a_step) < in_last
        chosen: list[list[TrainingExample]] = [[] for _ in range(steps)]
        for gives in gives_to_last:
            part = [next(by_length) for _ in range(steps - 1 + int(gives))]
            for step, at in zip(chosen, random.permutation(len(part)), strict=False):
                step.append(part[at])
        yield from map(tuple, chosen)


def packed_plan(
    steps: Sequence[Sequence[TrainingExample]],
    *,
    micro_batches: int,
    groups: int,
    length: int,
    multiple: int,
) -> Plan:
    """Packs every step into equally many rows of one length.

    Args:
      steps: the examples of every step.
      micro_batches: parts into which a step's rows are divided.
      groups: parts of a micro-batch that lie on devices of their own.
      length: of a row, where it holds the longest example; 0: the cheapest.
      multiple: what the length is a multiple of, if it is not given.
    """
    longest = max(positions_of(example) for example in chain(*steps))
    unit = micro_batches * groups
    if not length:
        length = _cheapest(steps, longest=longest, unit=unit, multiple=multiple)
    length = max(length, longest)
    packed = [pack(step, length=length) for step in steps]
    rows = rounded_up(max(map(len, packed)), step=unit) // micro_batches
    shape = BatchShape(
        rows=rows,
        micro_batches=micro_batches,
        length=length,
        groups=groups,
        answer_length=0,
    )
    most = max(_most_answers(step, shape=shape) for step in packed)
    return Plan(
        steps=tuple(map(tuple, packed)),
        shape=dataclasses.replace(
            shape, answer_length=rounded_up(most, step=ANSWER_STEP)
        ),
    )


def pack(examples: Sequence[TrainingExample], *, length: int) -> list[Row]:
    """Fills rows of `length` positions, best fit decreasing: the longest come first.

    Each goes where it leaves least room, or into a new row.
    """
    rows: list[list[TrainingExample]] = []
    room: list[int] = []
    for example in sorted(examples, key=positions_of, reverse=True):
        need = positions_of(example)
        fitting = [row for row in range(len(rows)) if room[row] >= need]
        best = min(fitting, key=room.__getitem__, default=len(rows))
        if best == len(rows):
            rows.append([])
            room.append(length)
        rows[best].append(example)
        room[best] -= need
    return [tuple(row) for row in rows]


def _cheapest(
    steps: Sequence[Sequence[TrainingExample]],
    *,
    longest: int,
    unit: int,
    multiple: int,
) -> int:
    """Returns the length at which the rows of all steps cost least together."""
    deciding = steps[: max(1, DECIDING // len(steps[0]))]
    shortest = rounded_up(longest, step=multiple)

    def cost(length: int) -> float:
        rows = max(len(pack(step, length=length)) for step in deciding)
        return rounded_up(rows, step=unit) * length * (1 + length / QUADRATIC)

    return min(range(shortest, max(shortest, MOST_POSITIONS) + 1, multiple), key=cost)


def _most_answers(rows: Sequence[Row], *, shape: BatchShape) -> int:
    """Returns the most positions with a loss that a group of a step has."""
    count = np.zeros((shape.micro_batches, shape.groups), int)
    for number, row in enumerate(rows):
        at, micro_batch = divmod(number, shape.micro_batches)
        group = at // (shape.rows // shape.groups)
        count[micro_batch, group] += sum(len(one.answer_tokens) for one in row)
    return int(count.max())
