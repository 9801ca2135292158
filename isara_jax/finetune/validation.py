"""Stopping early: the loss of held-out examples after each epoch, the best model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data import Batch, Plan, collate
from isara_jax.finetune.state import Best, TrainState, cast, copied, state_shardings
from isara_jax.finetune.step import total_loss
from isara_jax.runtime import Mesh, shard_batch


def mean_loss(
    model: Any, plan: Plan, *, config: FinetuneConfig, mesh: Mesh, base: Any = None
) -> float:
    """Returns the loss of a plan's examples in nats a token.

    With a `base`, the model are adapters on it.
    """
    total, tokens = 0.0, 0.0
    for rows in plan.steps:
        arrays = collate(rows, shape=plan.shape)
        batch = Batch(*(shard_batch(array, mesh) for array in arrays))
        total += float(
            total_loss(model, batch, base=base, remat=config.remat, mesh=mesh)
        )
        tokens += float(arrays.weights.sum())
    return total / tokens


def measured(
    state: TrainState,
    plan: Plan,
    *,
    config: FinetuneConfig,
    dtype: Any,
    mesh: Mesh,
    base: Any = None,
) -> tuple[TrainState, float]:
    """Measures an epoch's model; returns the state that knows of it, and the loss."""
    model = cast(state.model, dtype)
    loss = mean_loss(model, plan, base=base, config=config, mesh=mesh)
    best = dataclasses.replace(state.best, stale=state.best.stale + 1)
    if loss < float(state.best.loss):
        best = Best(
            model=copied(model, dtype),
            loss=jnp.asarray(loss, jnp.float32),
            stale=jnp.zeros((), jnp.int32),
        )
    # Where they were before, or the next step would be compiled for another place.
    best = jax.device_put(best, state_shardings(best, mesh))
    return dataclasses.replace(state, best=best), loss


def has_stalled(state: TrainState, *, config: FinetuneConfig) -> bool:
    """Tells whether the held-out loss has not fallen for the epochs allowed."""
    return int(state.best.stale) >= config.early_stop_epochs
