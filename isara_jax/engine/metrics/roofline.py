"""The roofline of generation: lower bounds on bytes moved and operations computed.

Counted are the weights, once a forward pass; keys and values; the products with the
weights, and those of attention. What a program does beyond that, padding among it, is
not counted: it shows as a smaller share of what the machine can do.
"""

from dataclasses import dataclass

import numpy as np

from isara_jax.models import Decoder
from isara_jax.runtime import logical_axes, parameters


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes read or written, and floating point operations."""

    bytes: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """The sizes of a model that costs follow from.

    Attributes:
      body: the parameters that every token is multiplied with.
      head: those of the output head. Embeddings, which are looked up, are in neither.
      itemsize: the bytes of a parameter.
      position_bytes: the bytes of a position's keys and values, in all layers.
      pair: the operations for one query and one position it attends to, in all layers.
      window: how many positions a query attends to at most.
    """

    body: int
    head: int
    itemsize: int
    position_bytes: int
    pair: int
    window: int | None


def model_sizes(model: Decoder) -> ModelSizes:
    """Counts a model's parameters by what is done with them."""
    c = model.config
    counts = {"body": 0, "vocab": 0, "positions": 0}
    for parameter in parameters(model):
        axes, array = logical_axes(parameter), parameter.get_value()
        kind = next((word for word in ("vocab", "positions") if word in axes), "body")
        # A head of its own has the embedding's shape, and only one of both is used up.
        counts[kind] = array.size if kind == "vocab" else counts[kind] + array.size
    itemsize = array.dtype.itemsize
    return ModelSizes(
        body=counts["body"],
        head=counts["vocab"],
        itemsize=itemsize,
        position_bytes=2 * c.layers * c.kv_heads * c.head_size * itemsize,
        pair=4 * c.layers * c.heads * c.head_size,
        window=c.window,
    )


def prefill_cost(sizes: ModelSizes, *, start: int, end: int) -> Cost:
    """Returns the lower bound of prefilling a prompt's positions from `start` to `end`.

    The head is applied to the last of them. The weights are counted once, in however
    many chunks the positions are computed.
    """
    pairs = _attended(np.arange(start, end) + 1, sizes.window).sum()
    weights = sizes.body + sizes.head
    return Cost(
        bytes=weights * sizes.itemsize + end * sizes.position_bytes,
        flops=2 * (sizes.body * (end - start) + sizes.head) + sizes.pair * int(pairs),
    )


def decode_cost(
    sizes: ModelSizes,
    *,
    lengths: np.ndarray,
    new: np.ndarray,
    shared_len: int,
    beams: int = 1,
) -> Cost:
    """Returns the lower bound of decoding `new` [B] tokens, a step for each token.

    `lengths` are the slots' positions before. The first `shared_len` of them lie in
    memory once: each step reads these once for all slots. With `beams`, every slot
    decodes so many tokens a step, which read what they share once: at least as much as
    one of them.
    """
    steps, tokens = int(new.max(initial=0)), int(new.sum())
    pairs = sum(
        int(_attended(length + 1 + np.arange(count), sizes.window).sum())
        for length, count in zip(lengths, new, strict=True)
    )
    weights = sizes.body + sizes.head
    read_together = shared_len * (tokens - steps) if sizes.window is None else 0
    return Cost(
        bytes=steps * weights * sizes.itemsize
        + (pairs - read_together) * sizes.position_bytes,
        flops=beams * (2 * weights * tokens + sizes.pair * pairs),
    )


def _attended(positions: np.ndarray, window: int | None) -> np.ndarray:
    return positions if window is None else np.minimum(positions, window)
