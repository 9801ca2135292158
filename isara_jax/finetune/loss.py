"""Cross-entropy of the answers' tokens in fp32, in chunks of label positions.

The output head of a 135M model with V = 49,152 is a fifth of the model's work at every
position, and its logits would be the largest array of a step. So the head runs at label
positions only, one chunk at a time. The gradient of a chunk is computed while its
logits exist: they are neither stored nor computed again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.finetune.data import TrainBatch
from isara_jax.models import Decoder, Remat, hidden_states
from isara_jax.models.attention import AttentionBackend

# Positions whose logits exist at the same time.
HEAD_CHUNK = 512

# From hidden states and the head's parameters to logits.
Head = Callable[..., Array]
Chunk = tuple[Float[Array, "B W D"], Int[Array, "B W"], Float[Array, "B W"]]


def answer_loss(
    model: Decoder,
    batch: TrainBatch,
    *,
    remat: Remat,
    chunk: int = HEAD_CHUNK,
    backend: AttentionBackend | None = None,
) -> Float[Array, ""]:
    """Returns the summed cross-entropy of a micro-batch's answers, in nats.

    Args:
      model: computes hidden states and logits.
      batch: a micro-batch, without the A axis.
      remat: what the backward pass computes again.
      chunk: label positions whose logits exist at the same time.
      backend: the attention kernels; None is XLA's.
    """
    hidden = hidden_states(
        model,
        batch.tokens,
        segments=batch.segments,
        positions=batch.positions,
        remat=remat,
        backend=backend,
    )
    groups = batch.label_positions.shape[0]
    grouped = hidden.reshape(groups, -1, hidden.shape[-1])
    answers = jnp.take_along_axis(grouped, batch.label_positions[..., None], axis=1)
    return cross_entropy(
        model, answers, labels=batch.labels, loss_mask=batch.loss_mask, chunk=chunk
    )


def cross_entropy(
    model: Decoder,
    hidden: Float[Array, "B P D"],
    *,
    labels: Int[Array, "B P"],
    loss_mask: Float[Array, "B P"],
    chunk: int,
) -> Float[Array, ""]:
    """Returns the sum of the masked losses, over chunks of at most `chunk` positions.

    It is differentiable once, in reverse mode, by the hidden states and by the head's
    parameters. The compiler removes a gradient that is not used.
    """
    rows, length = labels.shape
    count = min(length, -(-rows * length // chunk))
    width = -(-length // count)

    def split(array: Array) -> Array:
        # Along positions only, so that rows keep their sharding.
        tail = ((0, 0),) * (array.ndim - 2)
        padded = jnp.pad(array, ((0, 0), (0, count * width - length), *tail))
        chunks = padded.reshape(rows, count, width, *array.shape[2:])
        return jnp.moveaxis(chunks, 1, 0)

    def logits(rows: Array) -> Array:
        return model.logits(rows)

    # The parameters must be arguments of the function with a custom derivative.
    example = jax.ShapeDtypeStruct((rows * width, hidden.shape[-1]), hidden.dtype)
    head, parameters = jax.closure_convert(logits, example)
    return _summed_loss(head)(
        tuple(parameters), split(hidden), split(labels), split(loss_mask)
    )


def _summed_loss(head: Head) -> Callable[..., Float[Array, ""]]:
    """Returns a function that sums the chunks' losses, with a custom gradient."""

    @jax.custom_vjp
    def summed(
        parameters: Any, hidden: Array, labels: Array, loss_mask: Array
    ) -> Array:
        def add(total: Array, chunk: Chunk) -> tuple[Array, None]:
            return total + _chunk_loss(head, parameters, *chunk), None

        zero = jnp.zeros((), jnp.float32)
        return jax.lax.scan(add, zero, (hidden, labels, loss_mask))[0]

    def forward(
        parameters: Any, hidden: Array, labels: Array, loss_mask: Array
    ) -> tuple[Array, tuple[Any, Array]]:
        def add(carry: tuple[Array, Any], chunk: Chunk) -> tuple[Any, Array]:
            def loss(parameters: Any, hidden: Array) -> Array:
                return _chunk_loss(head, parameters, hidden, *chunk[1:])

            total, by_head = carry
            value, (more, by_hidden) = jax.value_and_grad(loss, (0, 1))(
                parameters, chunk[0]
            )
            return (total + value, jax.tree.map(jnp.add, by_head, more)), by_hidden

        nothing = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), parameters)
        start = (jnp.zeros((), jnp.float32), nothing)
        chunks = (hidden, labels, loss_mask)
        (total, by_head), by_hidden = jax.lax.scan(add, start, chunks)
        by_head = jax.tree.map(lambda sum, p: sum.astype(p.dtype), by_head, parameters)
        return total, (by_head, by_hidden)

    def backward(residuals: tuple[Any, Array], scale: Array) -> tuple[Any, ...]:
        by_head, by_hidden = jax.tree.map(
            lambda gradient: gradient * scale.astype(gradient.dtype), residuals
        )
        return by_head, by_hidden, None, None

    summed.defvjp(forward, backward)
    return summed


def _chunk_loss(
    head: Head, parameters: Any, hidden: Array, labels: Array, loss_mask: Array
) -> Float[Array, ""]:
    logits = head(hidden.reshape(-1, hidden.shape[-1]), *parameters)
    # A comparison in the place of a gather keeps the sharding over V, and its gradient
    # fuses.
    is_label = jnp.arange(logits.shape[1]) == labels.reshape(-1, 1)
    label_logits = jnp.sum(jnp.where(is_label, logits, 0.0), axis=1)
    losses = jax.nn.logsumexp(logits, axis=1) - label_logits
    return jnp.sum(losses * loss_mask.reshape(-1))
