"""From token ids to the arrays of an optimizer step: order, rows, loss positions.

What is trained on is the answer's span, which the caller ended with EOS, and nothing is
ever inferred from a padding token (DESIGN.md 7). Here an example has a row of its own;
`packing` puts several into one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Float32, Int32

from isara_jax.errors import InputError

# Lengths are rounded up to this: a token of padding costs what a token costs, and a
# new length costs a compilation.
LENGTH_STEP = 16


@dataclass(frozen=True, kw_only=True)
class TrainingExample:
    """A prompt, and the answer that is trained on; `answer_tokens` end with EOS.

    Raises:
      InputError: one of the two is empty.
    """

    id: str
    prompt_tokens: tuple[int, ...]
    answer_tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "answer_tokens"):
            if not getattr(self, name):
                raise InputError(
                    f"{self.id}: {name} is empty, needs at least one token"
                )

    def __len__(self) -> int:
        return len(self.prompt_tokens) + len(self.answer_tokens)


Row = Sequence[TrainingExample]


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The one shape that all steps of a finetuning share, so that one compiles.

    `rows` of `length` positions make a micro-batch. They lie in `groups` of as many
    consecutive rows, each with `answer_length` places for positions that have a loss.
    """

    rows: int
    micro_batches: int
    length: int
    groups: int
    answer_length: int


class Batch(NamedTuple):
    """The arrays of an optimizer step, or one micro-batch of them without the A axis.

    B rows of A micro-batches in G groups; rows and groups lead, since they are what the
    mesh splits. A row may hold several examples, each a segment from position 0 on:

        tokens      What is 2 + 2 ? It is 4 Why ? Be cause    EOS is only a label
        segments     1   1  1 1 1 1  1  1 1  2  2 2  2   0 0  0: padding
        positions    0   1  2 3 4 5  6  7 8  0  1 2  3   0 0
        answer_at                 5  6  7 8    10 11 12  whose next token is an answer's
        labels                   It is  4 EOS  Be cause EOS
        weights                   1  1  1 1     1 1  1   0: filling

    `answer_at` counts on from row to row of a group.
    """

    tokens: Int32[Any, "B A T"]
    segments: Int32[Any, "B A T"]
    positions: Int32[Any, "B A T"]
    answer_at: Int32[Any, "G A P"]
    labels: Int32[Any, "G A P"]
    weights: Float32[Any, "G A P"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of every step of a finetuning, and the shape of all of them."""

    steps: tuple[tuple[Row, ...], ...]
    shape: BatchShape


def fitting(
    examples: Sequence[TrainingExample], *, max_length: int
) -> tuple[TrainingExample, ...]:
    """Leaves out what is longer than `max_length` tokens, with a warning of the ids.

    Raises:
      InputError: nothing is left.
    """
    kept = tuple(example for example in examples if len(example) <= max_length)
    if not kept:
        raise InputError(
            f"finetuning: none of {len(examples)} examples is within "
            f"{max_length} tokens of prompt and answer; raise --max_length"
        )
    too_long = [example.id for example in examples if len(example) > max_length]
    if too_long:
        logging.warning(
            "%d of %d examples are longer than %d tokens and are not trained on: %s",
            *(len(too_long), len(examples), max_length, ", ".join(too_long)),
        )
    return kept


def shuffled_steps(
    examples: Sequence[TrainingExample],
    *,
    examples_a_step: int,
    epochs: int,
    round_index: int,
    seed: int,
) -> Iterator[tuple[TrainingExample, ...]]:
    """Yields the examples of every optimizer step, a new order every epoch.

    An epoch's last step holds what is left, one example at least.
    """
    for epoch in range(epochs):
        order = np.random.default_rng([seed, round_index, epoch]).permutation(
            len(examples)
        )
        for start in range(0, len(order), examples_a_step):
            chosen = order[start : start + examples_a_step]
            yield tuple(examples[index] for index in chosen)


def padded_plan(
    steps: Sequence[Sequence[TrainingExample]], *, rows: int, micro_batches: int
) -> Plan:
    """Gives every example a row of its own."""
    shape = shape_for(list(chain(*steps)), rows=rows, micro_batches=micro_batches)
    return Plan(
        steps=tuple(tuple((example,) for example in step) for step in steps),
        shape=shape,
    )


def shape_for(
    examples: Sequence[TrainingExample], *, rows: int, micro_batches: int
) -> BatchShape:
    """Returns the shape that holds the longest example and the longest answer."""
    longest = max(positions_of(example) for example in examples)
    longest_answer = max(len(example.answer_tokens) for example in examples)
    return BatchShape(
        rows=rows,
        micro_batches=micro_batches,
        length=rounded_up(longest),
        groups=rows,
        answer_length=rounded_up(longest_answer),
    )


def positions_of(example: TrainingExample) -> int:
    """Returns the positions that an example takes: its last token is only predicted."""
    return len(example) - 1


def rounded_up(length: int, *, step: int = LENGTH_STEP) -> int:
    """Returns the next multiple of the step."""
    return -(-length // step) * step


def make_batch(examples: Sequence[TrainingExample], *, shape: BatchShape) -> Batch:
    """Lays a step's examples out, one a row."""
    return collate([(example,) for example in examples], shape=shape)


def collate(rows: Sequence[Row], *, shape: BatchShape) -> Batch:
    """Writes a step's rows into arrays, each padded on the right.

    Rows that are left over have no token and no loss.
    """
    batch = Batch(*(np.zeros(one.shape, one.dtype) for one in abstract_batch(shape)))
    taken = np.zeros((shape.groups, shape.micro_batches), np.int32)
    in_group = shape.rows // shape.groups
    for number, row in enumerate(rows):
        at, micro_batch = divmod(number, shape.micro_batches)
        group, row_in_group = divmod(at, in_group)
        start = 0
        for segment, example in enumerate(row, start=1):
            end = start + positions_of(example)
            prompt, answer = example.prompt_tokens, example.answer_tokens
            batch.tokens[at, micro_batch, start:end] = prompt + answer[:-1]
            batch.segments[at, micro_batch, start:end] = segment
            batch.positions[at, micro_batch, start:end] = np.arange(end - start)
            first = taken[group, micro_batch]
            last = taken[group, micro_batch] = first + len(answer)
            asked = row_in_group * shape.length + np.arange(end - len(answer), end)
            batch.answer_at[group, micro_batch, first:last] = asked
            batch.labels[group, micro_batch, first:last] = answer
            batch.weights[group, micro_batch, first:last] = 1
            start = end
    return batch


def abstract_batch(shape: BatchShape) -> Batch:
    """Returns the arrays' shapes and dtypes."""
    row = (shape.rows, shape.micro_batches, shape.length)
    answers = (shape.groups, shape.micro_batches, shape.answer_length)
    return Batch(
        tokens=jax.ShapeDtypeStruct(row, np.int32),
        segments=jax.ShapeDtypeStruct(row, np.int32),
        positions=jax.ShapeDtypeStruct(row, np.int32),
        answer_at=jax.ShapeDtypeStruct(answers, np.int32),
        labels=jax.ShapeDtypeStruct(answers, np.int32),
        weights=jax.ShapeDtypeStruct(answers, np.float32),
    )
