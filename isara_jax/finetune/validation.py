"""Early stopping: the validation loss after each epoch, and the best model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data import BatchPlan, TrainBatch, collate
from isara_jax.finetune.state import (
    BestModel,
    TrainState,
    cast,
    copy_as,
    state_shardings,
)
from isara_jax.finetune.step import total_loss
from isara_jax.runtime import Mesh, shard_batch


def mean_loss(
    model: Any, plan: BatchPlan, *, config: FinetuneConfig, mesh: Mesh, base: Any = None
) -> float:
    """Returns the mean loss of a plan's answers in nats a token.

    With a `base`, the model are adapters on it.
    """
    total, tokens = 0.0, 0.0
    for rows in plan.steps:
        arrays = collate(rows, shape=plan.shape)
        batch = TrainBatch(*(shard_batch(array, mesh) for array in arrays))
        total += float(
            total_loss(model, batch, base=base, remat=config.remat, mesh=mesh)
        )
        tokens += float(arrays.loss_mask.sum())
    return total / tokens


def evaluate_epoch(
    state: TrainState,
    plan: BatchPlan,
    *,
    config: FinetuneConfig,
    dtype: Any,
    mesh: Mesh,
    base: Any = None,
) -> tuple[TrainState, float]:
    """Returns the state with the best model so far, and the epoch's validation loss."""
    model = cast(state.model, dtype)
    loss = mean_loss(model, plan, base=base, config=config, mesh=mesh)
    worse = state.best.epochs_without_improvement + 1
    best = dataclasses.replace(state.best, epochs_without_improvement=worse)
    if loss < float(state.best.loss):
        best = BestModel(
            model=copy_as(model, dtype),
            loss=jnp.asarray(loss, jnp.float32),
            epochs_without_improvement=jnp.zeros((), jnp.int32),
        )
    # With the shardings of before, or the next step would be compiled again.
    best = jax.device_put(best, state_shardings(best, mesh))
    return dataclasses.replace(state, best=best), loss


def should_stop_early(state: TrainState, *, config: FinetuneConfig) -> bool:
    """Tells whether the validation loss has not improved for `early_stop_epochs`."""
    return int(state.best.epochs_without_improvement) >= config.early_stop_epochs
