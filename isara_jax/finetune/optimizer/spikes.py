"""Loss spikes: a step whose loss is far above the recent ones is skipped.

A spike comes from a damaged text, or from examples unlike all others. One step is
skipped and its examples are named. Several in a row mean that the model has diverged,
and the finetuning ends. The history of losses is part of the training state, so that a
resumed finetuning skips the same steps.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# The median is that of so many losses, and no step is a spike before the second number
# of losses is known.
WINDOW = 16
MIN_LOSSES = 4
# So many spikes in a row end the finetuning.
MAX_CONSECUTIVE_SPIKES = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LossHistory:
    """The losses [W] of the last steps that were taken, NaN where there is none yet.

    `consecutive_spikes` is the number of steps in a row that were skipped since.
    """

    losses: Any
    consecutive_spikes: Any


def empty_history() -> LossHistory:
    """Returns the history before the first step."""
    return LossHistory(
        losses=jnp.full((WINDOW,), jnp.nan, jnp.float32),
        consecutive_spikes=jnp.zeros((), jnp.int32),
    )


def is_spike(
    history: LossHistory, loss: Float[Array, ""], *, factor: float
) -> Bool[Array, ""]:
    """Tells whether a loss is above `factor` times the median of the history."""
    known = jnp.sum(jnp.isfinite(history.losses))
    return (known >= MIN_LOSSES) & (loss > factor * jnp.nanmedian(history.losses))


def update_history(
    history: LossHistory, loss: Float[Array, ""], *, spike: Bool[Array, ""]
) -> LossHistory:
    """Returns the history after a step; the loss of a spike is not added."""
    shifted = jnp.append(history.losses[1:], loss)
    return LossHistory(
        losses=jnp.where(spike, history.losses, shifted),
        consecutive_spikes=jnp.where(spike, history.consecutive_spikes + 1, 0),
    )
