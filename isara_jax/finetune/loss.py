"""Cross-entropy on the answers' tokens, in fp32, the head applied where it counts.

The head over V = 49,152 costs a fifth of a 135M model's work at every position it is
asked for, and its logits would be the largest array of a step.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.finetune.batches import Batch
from isara_jax.models.attention import Kernels
from isara_jax.models.decoder import Decoder, Remat, hidden_states

# Positions whose logits exist at one time.
HEAD_CHUNK = 512


def answer_loss(
    model: Decoder,
    batch: Batch,
    *,
    remat: Remat,
    chunk: int = HEAD_CHUNK,
    kernels: Kernels | None = None,
) -> Float[Array, ""]:
    """Sums -log p(token | what precedes it) over a micro-batch's answers, in nats."""
    hidden = hidden_states(
        model,
        batch.tokens,
        segments=batch.segments,
        positions=batch.positions,
        remat=remat,
        kernels=kernels,
    )
    answers = jnp.take_along_axis(hidden, batch.answer_at[..., None], axis=1)
    return cross_entropy(
        model, answers, labels=batch.labels, weights=batch.weights, chunk=chunk
    )


def cross_entropy(
    model: Decoder,
    hidden: Float[Array, "B P D"],
    *,
    labels: Int[Array, "B P"],
    weights: Float[Array, "B P"],
    chunk: int,
) -> Float[Array, ""]:
    """Sums over chunks of positions whose logits the backward pass computes again."""
    rows, length = labels.shape
    count = min(length, -(-rows * length // chunk))
    width = -(-length // count)

    def split(array: Array) -> Array:
        # Along the positions: the rows stay where the mesh has put them.
        tail = ((0, 0),) * (array.ndim - 2)
        padded = jnp.pad(array, ((0, 0), (0, count * width - length), *tail))
        chunks = padded.reshape(rows, count, width, *array.shape[2:])
        return jnp.moveaxis(chunks, 1, 0)

    @jax.checkpoint
    def add_chunk(total: Array, part: tuple[Array, Array, Array]) -> tuple[Any, None]:
        hidden, labels, weights = part
        logits = model.logits(hidden.reshape(rows * width, -1))
        # A comparison, not a gather: it stays split over V, and its gradient is fused.
        chosen = jnp.arange(logits.shape[1]) == labels.reshape(-1, 1)
        right = jnp.sum(jnp.where(chosen, logits, 0.0), axis=1)
        losses = jax.nn.logsumexp(logits, axis=1) - right
        return total + jnp.sum(losses * weights.reshape(-1)), None

    parts = (split(hidden), split(labels), split(weights))
    total, _ = jax.lax.scan(add_chunk, jnp.zeros((), jnp.float32), parts)
    return total
