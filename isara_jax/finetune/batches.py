"""From token ids to the arrays of an optimizer step: order, padding, loss positions.

What is trained on is the answer's span, which the caller ended with EOS, and nothing is
ever inferred from a padding token (DESIGN.md 7).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The one shape that all steps of a finetuning share, so that one compiles."""

    rows: int
    micro_batches: int
    length: int
    answer_length: int


class Batch(NamedTuple):
    """The arrays of an optimizer step, or one micro-batch of them without the A axis.

    B rows of A micro-batches; the rows lead, since they are what the mesh splits.

        tokens      What is 2 + 2 ? It is 4        the last token, EOS, is only a label
        segments     1   1  1 1 1 1  1  1 1 0 0    0: padding
        answer_at                 5  6  7 8        whose next token is of the answer
        labels                   It is  4 EOS
        weights                   1  1  1 1        0: filling
    """

    tokens: Int32[Any, "B A T"]
    segments: Int32[Any, "B A T"]
    positions: Int32[Any, "B A T"]
    answer_at: Int32[Any, "B A P"]
    labels: Int32[Any, "B A P"]
    weights: Float32[Any, "B A P"]


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
    round: int,
    seed: int,
) -> Iterator[tuple[TrainingExample, ...]]:
    """Yields the examples of every optimizer step, a new order every epoch.

    An epoch's last step holds what is left, one example at least.
    """
    for epoch in range(epochs):
        order = np.random.default_rng([seed, round, epoch]).permutation(len(examples))
        for start in range(0, len(order), examples_a_step):
            chosen = order[start : start + examples_a_step]
            yield tuple(examples[index] for index in chosen)


def shape_for(
    examples: Sequence[TrainingExample], *, rows: int, micro_batches: int
) -> BatchShape:
    """Returns the shape that holds the longest example and the longest answer."""
    longest = max(len(example) - 1 for example in examples)
    longest_answer = max(len(example.answer_tokens) for example in examples)
    return BatchShape(
        rows=rows,
        micro_batches=micro_batches,
        length=_rounded_up(longest),
        answer_length=_rounded_up(longest_answer),
    )


def _rounded_up(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def make_batch(examples: Sequence[TrainingExample], *, shape: BatchShape) -> Batch:
    """Lays a step's examples out, one a row, padded on the right.

    Rows that are left over have no token and no loss.
    """
    count = shape.rows * shape.micro_batches

    def filling(length: int) -> np.ndarray:
        return np.zeros((count, length), np.int32)

    tokens, segments = filling(shape.length), filling(shape.length)
    answer_at, labels = filling(shape.answer_length), filling(shape.answer_length)
    weights = np.zeros((count, shape.answer_length), np.float32)
    for row, example in enumerate(examples):
        prompt, answer = example.prompt_tokens, example.answer_tokens
        end = len(example) - 1
        tokens[row, :end] = prompt + answer[:-1]
        segments[row, :end] = 1
        answer_at[row, : len(answer)] = np.arange(len(prompt) - 1, end)
        labels[row, : len(answer)] = answer
        weights[row, : len(answer)] = 1
    positions = np.broadcast_to(np.arange(shape.length, dtype=np.int32), tokens.shape)
    arrays = (tokens, segments, positions, answer_at, labels, weights)
    return Batch(
        *(array.reshape(shape.rows, shape.micro_batches, -1) for array in arrays)
    )
