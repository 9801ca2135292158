"""What a step trains on, token by token, as the arrays have it."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.batches import Batch, TrainingExample, collate, fitting
from isara_jax.finetune.data.plan import hold_out, make_plan
from isara_jax.runtime import Mesh

NOT_TRAINED = -1


def first_rows(
    examples: Sequence[TrainingExample],
    *,
    rows: int,
    config: FinetuneConfig,
    limit: int,
    seed: int,
    mesh: Mesh,
    spell: Callable[[int], str],
) -> Iterator[str]:
    """Yields lines on the first rows of round 1's first step on the examples.

    A line a token: its example in the row, its position there, its text, and whether it
    is trained. The last token of an example is trained without being read.
    """
    kept = fitting(examples, max_length=min(config.max_length, limit))
    trained, _ = hold_out(kept, config=config, round_index=1, seed=seed)
    plan = make_plan(
        trained, config=config, epochs=1, round_index=1, seed=seed, mesh=mesh
    )
    batch = collate(plan.steps[0], shape=plan.shape)
    labels = _labels(batch)
    for number, row in enumerate(plan.steps[0][:rows]):
        at, micro_batch = divmod(number, plan.shape.micro_batches)
        ids = ", ".join(example.id for example in row)
        yield f"row {number + 1} of {len(plan.steps[0])}: {ids}"
        yield "example position | token | trained?"
        yield from _row(
            tokens=batch.tokens[at, micro_batch],
            segments=batch.segments[at, micro_batch],
            positions=batch.positions[at, micro_batch],
            labels=labels[at, micro_batch],
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
        said = [*tokens[places], labels[places[-1]]]
        trained = ["no", *np.where(labels[places] == NOT_TRAINED, "no", "yes")]
        at = [*positions[places], positions[places[-1]] + 1]
        for position, token, is_trained in zip(at, said, trained, strict=True):
            yield f"{segment:7} {position:8} | {spell(int(token))} | {is_trained}"


def _labels(batch: Batch) -> np.ndarray:
    """Returns [B, A, T]: what every position is trained to be followed by."""
    rows, micro_batches, length = batch.tokens.shape
    groups = len(batch.answer_at)
    labels = np.full((micro_batches, groups, rows // groups * length), NOT_TRAINED)
    group, micro_batch, place = np.nonzero(batch.weights)
    at = batch.answer_at[group, micro_batch, place]
    labels[micro_batch, group, at] = batch.labels[group, micro_batch, place]
    return labels.reshape(micro_batches, rows, length).swapaxes(0, 1)
