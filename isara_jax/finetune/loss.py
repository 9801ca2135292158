"""Cross-entropy on the answers' tokens, in fp32, the head applied where it counts.

The head over V = 49,152 costs a fifth of a 135M model's work at every position it is
asked for, and its logits would be the largest array of a step. So it is asked for the
positions that have a loss, chunk by chunk, and a chunk's gradient is taken while its
logits are there: neither are they kept nor computed again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.finetune.data import Batch
from isara_jax.models import Decoder, Remat, hidden_states
from isara_jax.models.attention import AttentionBackend

# Positions whose logits exist at one time.
HEAD_CHUNK = 512

# hidden states, the head's parameters -> logits
Head = Callable[..., Array]
Chunk = tuple[Float[Array, "B W D"], Int[Array, "B W"], Float[Array, "B W"]]


def answer_loss(
    model: Decoder,
    batch: Batch,
    *,
    remat: Remat,
    chunk: int = HEAD_CHUNK,
    backend: AttentionBackend | None = None,
) -> Float[Array, ""]:
    """Sums -log p(token | what precedes it) over a micro-batch's answers, in nats."""
    hidden = hidden_states(
        model,
        batch.tokens,
        segments=batch.segments,
        positions=batch.positions,
        remat=remat,
        backend=backend,
    )
    groups = batch.answer_at.shape[0]
    grouped = hidden.reshape(groups, -1, hidden.shape[-1])
    answers = jnp.take_along_axis(grouped, batch.answer_at[..., None], axis=1)
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
    """Sums the weighted losses over chunks of positions, of `chunk` or fewer each.

    Differentiable once, in reverse, by the hidden states and the head's parameters; the
    compiler drops the gradient that nobody asks for.
    """
    rows, length = labels.shape
    count = min(length, -(-rows * length // chunk))
    width = -(-length // count)

    def split(array: Array) -> Array:
        # Along the positions: the rows stay where the mesh has put them.
        tail = ((0, 0),) * (array.ndim - 2)
        padded = jnp.pad(array, ((0, 0), (0, count * width - length), *tail))
        chunks = padded.reshape(rows, count, width, *array.shape[2:])
        return jnp.moveaxis(chunks, 1, 0)

    def logits(rows: Array) -> Array:
        return model.logits(rows)

    # A custom derivative must be told of every array that it may be taken by.
    example = jax.ShapeDtypeStruct((rows * width, hidden.shape[-1]), hidden.dtype)
    head, parameters = jax.closure_convert(logits, example)
    return _summed(head)(
        tuple(parameters), split(hidden), split(labels), split(weights)
    )


def _summed(head: Head) -> Callable[..., Float[Array, ""]]:
    """Returns the sum of the chunks' losses, as a function with its own gradient."""

    @jax.custom_vjp
    def summed(parameters: Any, hidden: Array, labels: Array, weights: Array) -> Array:
        def add(total: Array, chunk: Chunk) -> tuple[Array, None]:
            return total + _chunk_loss(head, parameters, *chunk), None

        zero = jnp.zeros((), jnp.float32)
        return jax.lax.scan(add, zero, (hidden, labels, weights))[0]

    def forward(
        parameters: Any, hidden: Array, labels: Array, weights: Array
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
        chunks = (hidden, labels, weights)
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
    head: Head, parameters: Any, hidden: Array, labels: Array, weights: Array
) -> Float[Array, ""]:
    logits = head(hidden.reshape(-1, hidden.shape[-1]), *parameters)
    # A comparison, not a gather: it stays split over V, and its gradient is fused.
    chosen = jnp.arange(logits.shape[1]) == labels.reshape(-1, 1)
    right = jnp.sum(jnp.where(chosen, logits, 0.0), axis=1)
    losses = jax.nn.logsumexp(logits, axis=1) - right
    return jnp.sum(losses * weights.reshape(-1))
