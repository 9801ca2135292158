"""Finetuning of one round on the mesh (PAPER.md 1, Fine-tuning).

What is trained is a whole model, as in the paper, or adapters on a frozen one.
Gradients' sums and the second moment are fp32, master parameters too unless asked
otherwise; the model computes in the dtype it came in.
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
    Batch,
    Plan,
    Row,
    TrainingExample,
    collate,
    fitting,
    hold_out,
    make_plan,
)
from isara_jax.finetune.optimizer import PATIENCE, learning_rate_at
from isara_jax.finetune.state import TrainState, cast, initial_state
from isara_jax.finetune.step import train_step
from isara_jax.finetune.validation import has_stalled, measured
from isara_jax.models import Decoder
from isara_jax.runtime import Mesh, StopRequested, dtype_of, shard_batch

Model = TypeVar("Model")


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What a step tells; losses in nats a token, the norm before clipping.

    `update_ratio` is the norm of the change over that of the parameters: 0 where a
    spike was not taken. `validation_loss` is there after an epoch, if one is measured.
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
        """Returns what is worth a line: neither what is not measured, nor no spikes."""
        optional = ("spikes", "validation_loss")
        return {
            name: value
            for name, value in asdict(self).items()
            if value or name not in optional
        }


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the caller wants to hear and to say between two steps.

    `save_state`, which is called after the steps for which `save_due` holds and before
    a stop, must need the state no more when it returns: the next step reuses its
    buffers.
    """

    on_step: Callable[[StepMetrics], None] = lambda _: None
    save_due: Callable[[int], bool] = lambda _: False
    save_state: Callable[[TrainState], None] = lambda _: None
    stop_requested: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class Course:
    """What all steps of a finetuning share; `rehearsal` is what is held out."""

    plan: Plan
    rehearsal: Plan | None
    config: FinetuneConfig
    round_index: int
    seed: int
    dtype: Any
    mesh: Mesh
    base: Any

    @property
    def steps_an_epoch(self) -> int:
        return len(self.plan.steps) // self.config.epochs


def finetune(
    model: Model,
    examples: Sequence[TrainingExample],
    *,
    config: FinetuneConfig,
    round_index: int,
    seed: int,
    mesh: Mesh,
    hooks: Hooks | None = None,
    restored: TrainState | None = None,
    base: Decoder | None = None,
) -> Model:
    """Trains the model on the examples and returns it, in the dtype it came in.

    The model and `restored` are consumed: their buffers become the new model's. With
    `restored`, of which the rest follows bit for bit as if nothing had stopped it, only
    the model's shapes and dtype are read, so that an abstract one will do. With a
    `base`, which stays as it is, the model are adapters on it. Rounds count from 1.

    Raises:
      InputError: every example is too long.
      FloatingPointError: a step's loss or gradient is not finite, or too many losses
        in a row are spikes.
      StopRequested: asked to stop, and the state has been given to `save_state`.
    """
    hooks = hooks or Hooks()
    # A position behind the context has no meaning in a model that learned positions.
    whole: Any = model if base is None else base
    limit = min(config.max_length, whole.config.context)
    course = _course(
        fitting(examples, max_length=limit),
        config=config,
        round_index=round_index,
        seed=seed,
        dtype=dtype_of(model),
        mesh=mesh,
        base=base,
    )
    state = restored or initial_state(model, config=config, mesh=mesh)
    del model
    for step in range(int(state.step) + 1, len(course.plan.steps) + 1):
        state, metrics = _take(state, course, step=step)
        _refuse_broken(metrics, course.plan.steps[step - 1], round_index=round_index)
        hooks.on_step(metrics)
        if metrics.validation_loss is not None and has_stalled(state, config=config):
            break
        if step < len(course.plan.steps):
            _save_or_stop(state, step, hooks=hooks)
    return state.best.model if state.best else cast(state.model, course.dtype)


def _course(
    examples: Sequence[TrainingExample],
    *,
    config: FinetuneConfig,
    round_index: int,
    seed: int,
    dtype: Any,
    mesh: Mesh,
    base: Decoder | None,
) -> Course:
    trained, held_out = hold_out(
        examples, config=config, round_index=round_index, seed=seed
    )

    def plan(examples: Sequence[TrainingExample], epochs: int) -> Plan:
        return make_plan(
            examples,
            config=config,
            epochs=epochs,
            round_index=round_index,
            seed=seed,
            mesh=mesh,
        )

    return Course(
        plan=plan(trained, config.epochs),
        rehearsal=plan(held_out, 1) if held_out else None,
        config=config,
        round_index=round_index,
        seed=seed,
        dtype=dtype,
        mesh=mesh,
        base=base,
    )


def _take(
    state: TrainState, course: Course, *, step: int
) -> tuple[TrainState, StepMetrics]:
    """Takes a step, and measures the held-out loss where it ends an epoch."""
    steps, config, mesh = course.plan.steps, course.config, course.mesh
    rate = learning_rate_at(
        config, round_index=course.round_index, step=step, steps=len(steps)
    )
    arrays = collate(steps[step - 1], shape=course.plan.shape)
    key = jax.random.fold_in(jax.random.key(course.seed), course.round_index)
    state, told = train_step(
        state,
        Batch(*(shard_batch(array, mesh) for array in arrays)),
        learning_rate=np.float32(rate),
        key=jax.random.fold_in(key, step),
        config=config,
        dtype=course.dtype,
        mesh=mesh,
        base=course.base,
    )
    loss, validation_loss = float(told.loss), None  # waits for the step
    if course.rehearsal and step % course.steps_an_epoch == 0 and math.isfinite(loss):
        state, validation_loss = measured(
            state,
            course.rehearsal,
            config=config,
            dtype=course.dtype,
            mesh=mesh,
            base=course.base,
        )
    return state, StepMetrics(
        step=step,
        loss=loss,
        learning_rate=rate,
        gradient_norm=float(told.gradient_norm),
        update_ratio=float(told.update_ratio),
        tokens=int(arrays.weights.sum()),
        spikes=int(told.spikes),
        validation_loss=validation_loss,
    )


def _refuse_broken(
    metrics: StepMetrics, rows: Sequence[Row], *, round_index: int
) -> None:
    finite = math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm)
    if finite and not metrics.spikes:
        return
    said = (
        f"finetuning of round {round_index}, step {metrics.step}: loss {metrics.loss}, "
        f"gradient norm {metrics.gradient_norm}; the step's examples: "
        + ", ".join(example.id for example in chain(*rows))
    )
    if not finite:
        raise FloatingPointError(said)
    if metrics.spikes == PATIENCE:
        raise FloatingPointError(f"spike {PATIENCE} in a row, the model breaks: {said}")
    logging.warning("a spike, not trained on: %s", said)


def _save_or_stop(state: TrainState, step: int, *, hooks: Hooks) -> None:
    stop = hooks.stop_requested()
    if stop or hooks.save_due(step):
        hooks.save_state(state)
    if stop:
        raise StopRequested(f"stopped after step {step} of the finetuning")
