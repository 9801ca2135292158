"""The guard against a step whose loss leaps: it is not taken.

What such a step would learn is mostly noise: a damaged text, or examples unlike all
others. One is skipped and named; several in a row say that the model itself has broken,
and skipping would go on for ever. The state is part of the training state, so that a
finetuning that goes on judges as one that was not stopped.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# So many losses make the median, and with fewer than the second number nothing is told.
WINDOW = 16
LEAST = 4
# So many spikes in a row end the finetuning.
PATIENCE = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Recent:
    """The losses of the last steps that were taken, NaN for none, and what followed.

    `losses` is [W], `spikes` how many steps in a row were not taken.
    """

    losses: Any
    spikes: Any


def no_losses() -> Recent:
    """Returns what is known before the first step."""
    return Recent(
        losses=jnp.full((WINDOW,), jnp.nan, jnp.float32),
        spikes=jnp.zeros((), jnp.int32),
    )


def is_spike(
    recent: Recent, loss: Float[Array, ""], *, factor: float
) -> Bool[Array, ""]:
    """Tells whether a loss is above so many times the median of the recent ones."""
    known = jnp.sum(jnp.isfinite(recent.losses))
    return (known >= LEAST) & (loss > factor * jnp.nanmedian(recent.losses))


def noted(recent: Recent, loss: Float[Array, ""], *, spike: Bool[Array, ""]) -> Recent:
    """Returns what is known after a step; a spike does not enter the median."""
    moved = jnp.append(recent.losses[1:], loss)
    return Recent(
        losses=jnp.where(spike, recent.losses, moved),
        spikes=jnp.where(spike, recent.spikes + 1, 0),
    )
