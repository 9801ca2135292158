"""Prints what a step trains on, token by token, as it stands in the arrays."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.batch_plan import plan_batches, split_validation
from isara_jax.finetune.data.collate import TrainBatch, collate
from isara_jax.finetune.data.training_example import TrainingExample, drop_too_long
from isara_jax.runtime import Mesh

NO_LABEL = -1


def preview_rows(
    examples: Sequence[TrainingExample],
    *,
    rows: int,
    config: FinetuneConfig,
    limit: int,
    seed: int,
    mesh: Mesh,
    spell: Callable[[int], str],
) -> Iterator[str]:
    """Yields lines that show the first rows of the first step of round 1.

    Every token has a line: the number of its example in the row, its position there,
    its text, and whether it has a loss. The last token of an example is a label only.

    Args:
      examples: what is trained on.
      rows: how many rows are shown.
      config: as for `finetune`.
      limit: the model's context in tokens.
      seed: as for `finetune`.
      mesh: as for `finetune`.
      spell: the text of a token id.
    """
    kept = drop_too_long(examples, max_length=min(config.max_length, limit))
    trained, _ = split_validation(kept, config=config, round_index=1, seed=seed)
    plan = plan_batches(
        trained, config=config, epochs=1, round_index=1, seed=seed, mesh=mesh
    )
    batch = collate(plan.steps[0], shape=plan.shape)
    labels = _labels(batch)
    for number, row in enumerate(plan.steps[0][:rows]):
        index, micro_batch = divmod(number, plan.shape.micro_batches)
        ids = ", ".join(example.id for example in row)
        yield f"row {number + 1} of {len(plan.steps[0])}: {ids}"
        yield "example position | token | trained?"
        yield from _row(
            tokens=batch.tokens[index, micro_batch],
            segments=batch.segments[index, micro_batch],
            positions=batch.positions[index, micro_batch],
            labels=labels[index, micro_batch],
            spell=spell,
        )


def _row(
    *,
    tokens: np.ndarray,
    segments: np.ndarray,
    positions: np.ndarray,
    labels: np.ndarray,
    spell: Callable[[int], str],
) -> Iterator[str]:
    for segment in range(1, segments.max() + 1):
        places = np.flatnonzero(segments == segment)
        shown = [*tokens[places], labels[places[-1]]]
        trained = ["no", *np.where(labels[places] == NO_LABEL, "no", "yes")]
        at = [*positions[places], positions[places[-1]] + 1]
        for position, token, is_trained in zip(at, shown, trained, strict=True):
            yield f"{segment:7} {position:8} | {spell(int(token))} | {is_trained}"


def _labels(batch: TrainBatch) -> np.ndarray:
    """Returns [B, A, T]: the label of every position."""
    rows, micro_batches, length = batch.tokens.shape
    groups = len(batch.label_positions)
    labels = np.full((micro_batches, groups, rows // groups * length), NO_LABEL)
    group, micro_batch, place = np.nonzero(batch.loss_mask)
    at = batch.label_positions[group, micro_batch, place]
    labels[micro_batch, group, at] = batch.labels[group, micro_batch, place]
    return labels.reshape(micro_batches, rows, length).swapaxes(0, 1)
