"""Finetuning of one round on the mesh (docs/method.md, "Finetuning").

Trained is a whole model, as in the paper, or adapters on a frozen one. The model
computes in the dtype that it comes in. Sums of gradients and the second moment are
fp32, and so are the master parameters unless `master_dtype` says otherwise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data import (
    BatchPlan,
    Row,
    TrainBatch,
    TrainingExample,
    collate,
    drop_too_long,
    plan_batches,
    split_validation,
)
from isara_jax.finetune.optimizer import MAX_CONSECUTIVE_SPIKES, learning_rate_at
from isara_jax.finetune.state import TrainState, cast, initial_state
from isara_jax.finetune.step import train_step
from isara_jax.finetune.validation import evaluate_epoch, should_stop_early
from isara_jax.models import Decoder
from isara_jax.runtime import Mesh, StopRequested, dtype_of, shard_batch

Model = TypeVar("Model")


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """The metrics of a step.

    Losses are in nats a token, `gradient_norm` is that before clipping. `update_ratio`
    is the norm of the update over that of the parameters, 0 if the step was skipped.
    `tokens` have a loss. `spikes` is the number of consecutive spikes. After an epoch
    there is a `validation_loss` if examples are held out.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    update_ratio: float
    tokens: int
    spikes: int = 0
    validation_loss: float | None = None

    def record(self) -> dict[str, Any]:
        """Returns the metrics as a record, without a missing loss or 0 spikes."""
        optional = ("spikes", "validation_loss")
        return {
            name: value
            for name, value in asdict(self).items()
            if value or name not in optional
        }


@dataclass(frozen=True, kw_only=True)
class TrainingHooks:
    """What the caller is called for between two steps.

    `on_step` gets every step's metrics. `save_state` is called after the steps for
    which `should_save` holds, and before a stop. When it returns it must not need the
    state any more: the next step donates its buffers. `should_stop` asks for a stop.
    """

    on_step: Callable[[StepMetrics], None] = lambda _: None
    should_save: Callable[[int], bool] = lambda _: False
    save_state: Callable[[TrainState], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What all steps of a finetuning share: its batches, settings and mesh.

    `validation` are the batches of the validation set, if examples are held out.
    `dtype` is the model's, `base` the frozen model if adapters are trained.
    """

    batches: BatchPlan
    validation: BatchPlan | None
    config: FinetuneConfig
    round_index: int
    seed: int
    dtype: Any
    mesh: Mesh
    base: Any

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps of an epoch."""
        return len(self.batches.steps) // self.config.epochs


def finetune(
    model: Model,
    examples: Sequence[TrainingExample],
    *,
    config: FinetuneConfig,
    round_index: int,
    seed: int,
    mesh: Mesh,
    hooks: TrainingHooks | None = None,
    restored: TrainState | None = None,
    base: Decoder | None = None,
) -> Model:
    """Trains the model on the examples and returns it, in the dtype that it came in.

    Args:
      model: donated. With `restored` only its shapes and dtype are read, so that an
        abstract model will do. With `base` it is the adapters on that.
      examples: those of the round; the longest are dropped (`max_length`).
      config: the settings.
      round_index: t, from 1; it decides on the learning rate and on the order.
      seed: of the order, the validation set and stochastic rounding.
      mesh: where the model is trained.
      hooks: called between steps.
      restored: the state to resume from, donated. What follows is bit for bit the same
        as without the interruption.
      base: the frozen model under adapters; it is not changed.

    Raises:
      FieldError: every example is longer than `max_length` or the model's context.
      FloatingPointError: a step's loss or gradient is not finite, or too many losses
        in a row are spikes.
      StopRequested: a stop was asked for, and the state was given to `save_state`.
    """
    hooks = hooks or TrainingHooks()
    # A model with learned positions has none beyond its context.
    whole: Any = model if base is None else base
    limit = min(config.max_length, whole.config.context)
    plan = _plan(
        drop_too_long(examples, max_length=limit),
        config=config,
        round_index=round_index,
        seed=seed,
        dtype=dtype_of(model),
        mesh=mesh,
        base=base,
    )
    state = restored or initial_state(model, config=config, mesh=mesh)
    del model
    for step in range(int(state.step) + 1, len(plan.batches.steps) + 1):
        state, metrics = _take_step(state, plan, step=step)
        _validate_metrics(
            metrics, plan.batches.steps[step - 1], round_index=round_index
        )
        hooks.on_step(metrics)
        if metrics.validation_loss is not None and should_stop_early(
            state, config=config
        ):
            break
        if step < len(plan.batches.steps):
            _save_or_stop(state, step, hooks=hooks)
    return state.best.model if state.best else cast(state.model, plan.dtype)


def _plan(
    examples: Sequence[TrainingExample],
    *,
    config: FinetuneConfig,
    round_index: int,
    seed: int,
    dtype: Any,
    mesh: Mesh,
    base: Decoder | None,
) -> TrainingPlan:
    training, validation = split_validation(
        examples, config=config, round_index=round_index, seed=seed
    )

    def batches(examples: Sequence[TrainingExample], epochs: int) -> BatchPlan:
        return plan_batches(
            examples,
            config=config,
            epochs=epochs,
            round_index=round_index,
            seed=seed,
            mesh=mesh,
        )

    return TrainingPlan(
        batches=batches(training, config.epochs),
        validation=batches(validation, 1) if validation else None,
        config=config,
        round_index=round_index,
        seed=seed,
        dtype=dtype,
        mesh=mesh,
        base=base,
    )


def _take_step(
    state: TrainState, plan: TrainingPlan, *, step: int
) -> tuple[TrainState, StepMetrics]:
    """Takes a step, and computes the validation loss at the end of an epoch."""
    steps, config, mesh = plan.batches.steps, plan.config, plan.mesh
    rate = learning_rate_at(
        config, round_index=plan.round_index, step=step, steps=len(steps)
    )
    arrays = collate(steps[step - 1], shape=plan.batches.shape)
    key = jax.random.fold_in(jax.random.key(plan.seed), plan.round_index)
    state, outputs = train_step(
        state,
        TrainBatch(*(shard_batch(array, mesh) for array in arrays)),
        learning_rate=np.float32(rate),
        key=jax.random.fold_in(key, step),
        config=config,
        dtype=plan.dtype,
        mesh=mesh,
        base=plan.base,
    )
    loss, validation_loss = float(outputs.loss), None  # waits for the step
    if plan.validation and step % plan.steps_per_epoch == 0 and math.isfinite(loss):
        state, validation_loss = evaluate_epoch(
            state,
            plan.validation,
            config=config,
            dtype=plan.dtype,
            mesh=mesh,
            base=plan.base,
        )
    return state, StepMetrics(
        step=step,
        loss=loss,
        learning_rate=rate,
        gradient_norm=float(outputs.gradient_norm),
        update_ratio=float(outputs.update_ratio),
        tokens=int(arrays.loss_mask.sum()),
        spikes=int(outputs.spikes),
        validation_loss=validation_loss,
    )


def _validate_metrics(
    metrics: StepMetrics, rows: Sequence[Row], *, round_index: int
) -> None:
    finite = math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm)
    if finite and not metrics.spikes:
        return
    description = (
        f"finetuning of round {round_index}, step {metrics.step}: loss {metrics.loss}, "
        f"gradient norm {metrics.gradient_norm}; the step's examples: "
        + ", ".join(example.id for example in chain(*rows))
    )
    if not finite:
        raise FloatingPointError(description)
    if metrics.spikes == MAX_CONSECUTIVE_SPIKES:
        raise FloatingPointError(
            f"spike {MAX_CONSECUTIVE_SPIKES} in a row, the model breaks: {description}"
        )
    logging.warning("a spike, not trained on: %s", description)


def _save_or_stop(state: TrainState, step: int, *, hooks: TrainingHooks) -> None:
    stop = hooks.should_stop()
    if stop or hooks.should_save(step):
        hooks.save_state(state)
    if stop:
        raise StopRequested(f"stopped after step {step} of the finetuning")
