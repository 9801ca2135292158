"""Texts to score in padded batches of few shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isara_jax.engine.kv_cache import round_up, rows_within
from isara_jax.engine.request import Request, validate_length

PROMPT_STEP = 64


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """What a batch is compiled for: rows, and their positions."""

    rows: int
    prompt: int


@dataclass(frozen=True, kw_only=True)
class PaddedBatch:
    """Texts that are scored together."""

    prompts: tuple[Request, ...]
    shape: BatchShape


def plan_batches(
    prompts: Sequence[Request],
    *,
    slots: int,
    row_multiple: int,
    context: int,
) -> tuple[PaddedBatch, ...]:
    """Sorts the prompts by length and cuts them into batches of equally many rows.

    These are at most `slots`, a multiple of `row_multiple`, and at least that.

    Raises:
      InputError: a text is empty, or does not fit the model's context.
    """
    for prompt in prompts:
        validate_length(prompt, new=0, context=context)
    if not prompts:
        return ()
    most = rows_within(slots, multiple=row_multiple)
    count = -(-len(prompts) // most)
    rows = -(-len(prompts) // count)
    padded_rows = round_up(rows, row_multiple)
    ordered = sorted(prompts, key=lambda p: (len(p.token_ids), p.sample_index))
    return tuple(
        _batch(ordered[start : start + rows], padded_rows)
        for start in range(0, len(ordered), rows)
    )


def left_padded(batch: PaddedBatch) -> tuple[np.ndarray, np.ndarray]:
    """Lays the prompts out as [B, T] tokens and segments (1 token, 0 padding).

    Rows beyond the prompts repeat the last one; their scores are thrown away.
    """
    tokens = np.zeros((batch.shape.rows, batch.shape.prompt), np.int32)
    segments = np.zeros_like(tokens)
    for row in range(batch.shape.rows):
        ids = batch.prompts[min(row, len(batch.prompts) - 1)].token_ids
        tokens[row, -len(ids) :] = ids
        segments[row, -len(ids) :] = 1
    return tokens, segments


def _batch(prompts: Sequence[Request], rows: int) -> PaddedBatch:
    length = round_up(max(len(p.token_ids) for p in prompts), PROMPT_STEP)
    return PaddedBatch(
        prompts=tuple(prompts), shape=BatchShape(rows=rows, prompt=length)
    )
