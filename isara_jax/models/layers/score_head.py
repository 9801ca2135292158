"""A linear head that scores a text, in the place of the one over the vocabulary.

With 14 labels and sigmoids behind them it is that of Beaver-Dam (BeaverTails, arXiv
2307.04657); with one, that of safe-rlhf's reward and cost models.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


@dataclass(frozen=True, kw_only=True)
class ScoreHead:
    """How many labels are scored; `name` is the head's in a file: score, score_head."""

    labels: int
    bias: bool
    name: str


def score_parameters(
    head: ScoreHead, *, width: int, key: Array, dtype: Any
) -> tuple[nnx.Param, nnx.Param | None]:
    """Returns the parameters of a new head, [labels, D] and [labels] or None."""
    value = 0.02 * jax.random.normal(key, (head.labels, width))
    weight = nnx.Param(value.astype(dtype), axes=("labels", "embed"))
    if not head.bias:
        return weight, None
    return weight, nnx.Param(jnp.zeros((head.labels,), dtype), axes=("labels",))


def score_labels(
    hidden: Float[Array, "rows D"], weight: nnx.Param, bias: nnx.Param | None
) -> Float[Array, "rows labels"]:
    """Applies the head, in fp32."""
    scores = jnp.matmul(hidden, weight[...].T, preferred_element_type=jnp.float32)
    return scores if bias is None else scores + bias[...].astype(jnp.float32)
