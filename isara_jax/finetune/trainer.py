"""Full-parameter finetuning of one round on the mesh (PAPER.md 1, Fine-tuning).

Master parameters, gradients' sums and AdamW's moments are fp32; the model computes in
the dtype it came in. A step is one compiled call, which reuses the state's buffers.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from isara_jax.finetune import batches
from isara_jax.finetune.batches import Batch, TrainingExample
from isara_jax.finetune.loss import answer_loss
from isara_jax.finetune.optimizer import (
    FinetuneConfig,
    learning_rate_at,
    make_optimizer,
)
from isara_jax.finetune.state import TrainState, cast, initial_state, state_shardings
from isara_jax.models.attention import kernels_for
from isara_jax.models.decoder import Decoder, Remat
from isara_jax.runtime.mesh import Mesh, model_shardings, place_batch
from isara_jax.runtime.signals import StopRequested

Model = TypeVar("Model", bound=Decoder)


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What a step tells; `loss` in nats a token, the norm before clipping."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the caller wants to hear and to say between two steps.

    `save_state` must be done with the state when it returns: the next step reuses its
    buffers.
    """

    on_step: Callable[[StepMetrics], None] = lambda _: None
    save_state: Callable[[TrainState], None] = lambda _: None
    stop_requested: Callable[[], bool] = lambda: False


def finetune(
    model: Model,
    examples: Sequence[TrainingExample],
    *,
    config: FinetuneConfig,
    round: int,
    seed: int,
    mesh: Mesh,
    hooks: Hooks | None = None,
    restored: TrainState | None = None,
) -> Model:
    """Trains the model on the examples and returns it, in the dtype it came in.

    The model and `restored` are consumed: their buffers become the new model's. With
    `restored`, of which the rest follows bit for bit as if nothing had stopped it, only
    the model's shapes and dtype are read, so that an abstract one will do. Rounds count
    from 1.

    Raises:
      InputError: every example is too long.
      FloatingPointError: a step's loss or gradient is not finite.
      StopRequested: asked to stop, and the state has been saved.
    """
    hooks = hooks or Hooks()
    dtype = jax.tree.leaves(model)[0].dtype
    # A position behind the context has no meaning in a model that learned positions.
    limit = min(config.max_length, model.config.context)
    steps, shape = _plan(examples, config=config, limit=limit, round=round, seed=seed)
    state = restored or initial_state(model, config=config, mesh=mesh)
    del model
    for step in range(int(state.step) + 1, len(steps) + 1):
        rate = learning_rate_at(config, round=round, step=step, steps=len(steps))
        arrays = batches.make_batch(steps[step - 1], shape=shape)
        state, loss, norm = train_step(
            state,
            Batch(*(place_batch(array, mesh) for array in arrays)),
            learning_rate=np.float32(rate),
            config=config,
            dtype=dtype,
            mesh=mesh,
        )
        metrics = StepMetrics(
            step=step,
            loss=float(loss),  # waits for the step
            learning_rate=rate,
            gradient_norm=float(norm),
            tokens=int(arrays.weights.sum()),
        )
        _refuse_non_finite(metrics, steps[step - 1], round=round)
        hooks.on_step(metrics)
        if step < len(steps):
            _save_or_stop(state, step, config=config, hooks=hooks)
    return cast(state.model, dtype)


def _plan(
    examples: Sequence[TrainingExample],
    *,
    config: FinetuneConfig,
    limit: int,
    round: int,
    seed: int,
) -> tuple[list[tuple[TrainingExample, ...]], batches.BatchShape]:
    """Returns the examples of every step, and the shape of all steps."""
    fitting = batches.fitting(examples, max_length=limit)
    steps = batches.shuffled_steps(
        fitting,
        examples_a_step=config.train_batch * config.accumulation,
        epochs=config.epochs,
        round=round,
        seed=seed,
    )
    shape = batches.shape_for(
        fitting, rows=config.train_batch, micro_batches=config.accumulation
    )
    return list(steps), shape


def _refuse_non_finite(
    metrics: StepMetrics, examples: Sequence[TrainingExample], *, round: int
) -> None:
    if math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm):
        return
    raise FloatingPointError(
        f"finetuning of round {round}, step {metrics.step}: loss {metrics.loss}, "
        f"gradient norm {metrics.gradient_norm}; the step's examples: "
        + ", ".join(example.id for example in examples)
    )


def _save_or_stop(
    state: TrainState, step: int, *, config: FinetuneConfig, hooks: Hooks
) -> None:
    stop = hooks.stop_requested()
    due = config.train_save_steps and step % config.train_save_steps == 0
    if stop or due:
        hooks.save_state(state)
    if stop:
        raise StopRequested(f"stopped after step {step} of the finetuning")


@functools.partial(
    jax.jit, static_argnames=("config", "dtype", "mesh"), donate_argnames="state"
)
def train_step(
    state: TrainState,
    batch: Batch,
    *,
    learning_rate: Float[Any, ""],
    config: FinetuneConfig,
    dtype: Any,
    mesh: Mesh,
) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
    """Takes one step; returns the new state, the mean loss and the gradient's norm."""
    loss, gradients = _mean_gradients(
        cast(state.model, dtype), batch, remat=config.remat, mesh=mesh
    )
    updates, optimizer = make_optimizer(config).update(
        gradients, state.optimizer, state.model
    )
    model = jax.tree.map(
        lambda value, update: value - learning_rate * update, state.model, updates
    )
    new = TrainState(step=state.step + 1, model=model, optimizer=optimizer)
    new = jax.lax.with_sharding_constraint(new, state_shardings(new, mesh))
    return new, loss, optax.tree.norm(gradients)


def _mean_gradients(
    model: Model, batch: Batch, *, remat: Remat, mesh: Mesh
) -> tuple[Float[Array, ""], Model]:
    """Averages over the answer tokens of the whole step, whatever its micro-batches."""
    tokens, kernels = jnp.sum(batch.weights), kernels_for(mesh)

    def share_of_mean(model: Model, micro_batch: Batch) -> Array:
        return answer_loss(model, micro_batch, remat=remat, kernels=kernels) / tokens

    gradient = jax.value_and_grad(share_of_mean)
    if batch.tokens.shape[1] == 1:
        loss, gradients = gradient(model, Batch(*(array[:, 0] for array in batch)))
        return loss, cast(gradients, jnp.float32)

    def add(sums: tuple[Array, Model], micro_batch: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, gradient(model, micro_batch)), None

    none = jax.tree.map(lambda array: jnp.zeros(array.shape, jnp.float32), model)
    none = jax.lax.with_sharding_constraint(none, model_shardings(model, mesh))
    micro_batches = Batch(*(jnp.moveaxis(array, 1, 0) for array in batch))
    sums, _ = jax.lax.scan(add, (jnp.zeros((), jnp.float32), none), micro_batches)
    return sums
