"""Texts through a model with a score head: what judges and reward models say of them.

A text is scored where its last token stands, so it comes as the judge was trained to
read it: written in the judge's format, in token ids, its first and last ones included.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from isara_jax.engine.padded_batch import PaddedBatch, left_padded, plan_batches
from isara_jax.engine.request import Request
from isara_jax.errors import InputError
from isara_jax.models import Decoder, pooled_scores
from isara_jax.models.attention import attention_backend
from isara_jax.runtime import Mesh, shard_batch


def classify(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    slots: int,
    mesh: Mesh,
    check: Callable[[], None],
) -> Float32[np.ndarray, "n labels"]:
    """Returns the score of every label for every prompt, in the prompts' order.

    They are the head's own numbers: sigmoids and thresholds are the caller's. `check`
    is called before every batch, and may raise to stop.

    Raises:
      InputError: the model has no score head, or a prompt is empty or does not fit its
        context.
    """
    head, context = model.config.score, model.config.context
    if head is None:
        raise InputError(
            "the model has no score head, so it cannot score texts; give one for "
            "sequence classification, such as Beaver-Dam or a reward model"
        )
    for number, tokens in enumerate(prompts):
        if not 1 <= len(tokens) <= context:
            raise InputError(
                f"text {number} to score has {len(tokens)} tokens; it must have 1 or "
                f"more and fit the model's context of {context}"
            )
    found = np.zeros((len(prompts), head.labels), np.float32)
    for batch in _batches(prompts, slots=slots, mesh=mesh, context=context):
        check()
        places = [prompt.sample_index for prompt in batch.prompts]
        found[places] = _score_batch(model, batch, mesh=mesh)[: len(places)]
    return found


def _batches(
    prompts: Sequence[Sequence[int]], *, slots: int, mesh: Mesh, context: int
) -> tuple[PaddedBatch, ...]:
    return plan_batches(
        [
            Request(id=str(number), sample_index=number, token_ids=tuple(tokens))
            for number, tokens in enumerate(prompts)
        ],
        slots=slots,
        row_multiple=mesh.shape["data"],
        context=context,
    )


def _score_batch(
    model: Decoder, batch: PaddedBatch, *, mesh: Mesh
) -> Float32[np.ndarray, "B labels"]:
    place = partial(shard_batch, mesh=mesh)
    tokens, segments = map(place, left_padded(batch))
    return np.asarray(_pooled(model, tokens, segments, mesh=mesh))


@partial(jax.jit, static_argnames="mesh")
def _pooled(
    model: Decoder,
    tokens: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    *,
    mesh: Mesh,
) -> Float[Array, "B labels"]:
    return pooled_scores(
        model, tokens, segments=segments, backend=attention_backend(mesh)
    )
