"""Collation: the rows of an optimizer step become arrays of one shape.

The loss mask comes from the answers' spans. It is never inferred from padding tokens:
the padding token of many tokenizers is also their EOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32

from isara_jax.finetune.data.training_example import TrainingExample, num_positions

# The examples of one row, one after the other.
Row = Sequence[TrainingExample]


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The one shape of all steps of a finetuning, so that one compiled step serves all.

    A micro-batch has `rows` rows of `length` positions. They form `groups` groups of
    consecutive rows, each with `answer_length` label positions.
    """

    rows: int
    micro_batches: int
    length: int
    groups: int
    answer_length: int


class TrainBatch(NamedTuple):
    """The arrays of an optimizer step, or of one micro-batch without the A axis.

    A step has A micro-batches of B rows in G groups, T positions a row and P label
    positions a group. Rows and groups lead, since the mesh splits them. A row may hold
    several examples, each a segment with positions from 0:

        tokens           What is 2 + 2 ? It is 4 Why ? Be cause    EOS is only a label
        segments          1   1  1 1 1 1  1  1 1  2  2 2  2   0 0  0: padding
        positions         0   1  2 3 4 5  6  7 8  0  1 2  3   0 0
        label_positions                5  6  7 8    10 11 12  predict an answer's token
        labels                        It is  4 EOS  Be cause EOS
        loss_mask                      1  1  1 1     1 1  1   0: padding

    `label_positions` count through all rows of a group.
    """

    tokens: Int32[Any, "B A T"]
    segments: Int32[Any, "B A T"]
    positions: Int32[Any, "B A T"]
    label_positions: Int32[Any, "G A P"]
    labels: Int32[Any, "G A P"]
    loss_mask: Float32[Any, "G A P"]


def collate(rows: Sequence[Row], *, shape: BatchShape) -> TrainBatch:
    """Writes the rows of a step into arrays, padded on the right.

    A row that the shape has room for and the step lacks has no token and no loss.
    """
    batch = TrainBatch(
        *(np.zeros(one.shape, one.dtype) for one in abstract_batch(shape))
    )
    num_labels = np.zeros((shape.groups, shape.micro_batches), np.int32)
    rows_per_group = shape.rows // shape.groups
    for number, row in enumerate(rows):
        index, micro_batch = divmod(number, shape.micro_batches)
        group, row_in_group = divmod(index, rows_per_group)
        start = 0
        for segment, example in enumerate(row, start=1):
            end = start + num_positions(example)
            prompt, answer = example.prompt_tokens, example.answer_tokens
            batch.tokens[index, micro_batch, start:end] = prompt + answer[:-1]
            batch.segments[index, micro_batch, start:end] = segment
            batch.positions[index, micro_batch, start:end] = np.arange(end - start)
            first = num_labels[group, micro_batch]
            last = num_labels[group, micro_batch] = first + len(answer)
            predicting = row_in_group * shape.length + np.arange(end - len(answer), end)
            batch.label_positions[group, micro_batch, first:last] = predicting
            batch.labels[group, micro_batch, first:last] = answer
            batch.loss_mask[group, micro_batch, first:last] = 1
            start = end
    return batch


def abstract_batch(shape: BatchShape) -> TrainBatch:
    """Returns the arrays' shapes and dtypes."""
    row = (shape.rows, shape.micro_batches, shape.length)
    labels = (shape.groups, shape.micro_batches, shape.answer_length)
    return TrainBatch(
        tokens=jax.ShapeDtypeStruct(row, np.int32),
        segments=jax.ShapeDtypeStruct(row, np.int32),
        positions=jax.ShapeDtypeStruct(row, np.int32),
        label_positions=jax.ShapeDtypeStruct(labels, np.int32),
        labels=jax.ShapeDtypeStruct(labels, np.int32),
        loss_mask=jax.ShapeDtypeStruct(labels, np.float32),
    )
