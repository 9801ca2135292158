"""An optimizer step as one compiled program, which donates the state's buffers."""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data import TrainBatch
from isara_jax.finetune.loss import HEAD_CHUNK, answer_loss
from isara_jax.finetune.optimizer import (
    is_spike,
    make_optimizer,
    round_tree,
    update_history,
)
from isara_jax.finetune.state import TrainState, cast, state_shardings
from isara_jax.models import Remat
from isara_jax.models.attention import attention_backend
from isara_jax.models.lora import on_base
from isara_jax.runtime import Mesh, model_shardings

Model = TypeVar("Model")


class StepOutputs(NamedTuple):
    """The metrics of a step as scalars on the device.

    The mean loss in nats a token, the gradient's norm before clipping, the norm of the
    update over that of the parameters, and the number of consecutive spikes.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    update_ratio: Float[Array, ""]
    spikes: Any


@functools.partial(
    jax.jit, static_argnames=("config", "dtype", "mesh"), donate_argnames="state"
)
def train_step(
    state: TrainState,
    batch: TrainBatch,
    *,
    learning_rate: Float[Any, ""],
    key: Key[Array, ""],
    config: FinetuneConfig,
    dtype: Any,
    mesh: Mesh,
    base: Any = None,
) -> tuple[TrainState, StepOutputs]:
    """Takes one step. The parameters do not change if the loss is a spike.

    Args:
      state: donated.
      batch: all micro-batches of the step.
      learning_rate: of this step.
      key: for the stochastic rounding of bf16 master parameters.
      config: the optimizer, the guard against spikes, remat.
      dtype: of the model's weights and arithmetic.
      mesh: where the state lies.
      base: the frozen model, if the state's model are adapters on it.
    """
    loss, gradients = mean_gradients(
        cast(state.model, dtype), batch, base=base, remat=config.remat, mesh=mesh
    )

    def apply_update() -> tuple[Any, Any, Array]:
        master = cast(state.model, jnp.float32)
        updates, optimizer = make_optimizer(config).update(
            gradients, state.optimizer, master
        )
        model = jax.tree.map(
            lambda value, update: value - learning_rate * update, master, updates
        )
        ratio = learning_rate * optax.tree.norm(updates) / optax.tree.norm(master)
        return round_tree(model, state.model, key), optimizer, ratio

    history, spikes = state.loss_history, jnp.zeros((), jnp.int32)
    if history is None:
        model, optimizer, ratio = apply_update()
    else:
        spike = is_spike(history, loss, factor=config.spike_factor)
        history = update_history(history, loss, spike=spike)
        spikes = history.consecutive_spikes
        model, optimizer, ratio = jax.lax.cond(
            spike, lambda: (state.model, state.optimizer, jnp.zeros(())), apply_update
        )
    new = TrainState(
        step=state.step + 1,
        model=model,
        optimizer=optimizer,
        loss_history=history,
        best=state.best,
    )
    new = jax.lax.with_sharding_constraint(new, state_shardings(new, mesh))
    return new, StepOutputs(loss, optax.tree.norm(gradients), ratio, spikes)


def mean_gradients(
    model: Model, batch: TrainBatch, *, remat: Remat, mesh: Mesh, base: Any = None
) -> tuple[Float[Array, ""], Model]:
    """Returns the mean loss over all answer tokens of a step, and its gradients.

    The mean is over the step, not over its micro-batches. The gradients are fp32, by
    the model or by the adapters on the base. None is computed by the base itself.
    """
    tokens, backend = jnp.sum(batch.loss_mask), attention_backend(mesh)

    def share_of_mean(model: Model, micro_batch: TrainBatch) -> Array:
        whole = on_base(base, model)
        loss = answer_loss(
            whole, micro_batch, remat=remat, chunk=_chunk_size(mesh), backend=backend
        )
        return loss / tokens

    gradient = jax.value_and_grad(share_of_mean)
    if batch.tokens.shape[1] == 1:
        loss, gradients = gradient(model, TrainBatch(*(array[:, 0] for array in batch)))
        return loss, cast(gradients, jnp.float32)

    def add(sums: tuple[Array, Model], micro_batch: TrainBatch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, gradient(model, micro_batch)), None

    zeros = jax.tree.map(lambda array: jnp.zeros(array.shape, jnp.float32), model)
    zeros = jax.lax.with_sharding_constraint(zeros, model_shardings(model, mesh))
    micro_batches = TrainBatch(*(jnp.moveaxis(array, 1, 0) for array in batch))
    sums, _ = jax.lax.scan(add, (jnp.zeros((), jnp.float32), zeros), micro_batches)
    return sums


@functools.partial(jax.jit, static_argnames=("remat", "mesh"))
def total_loss(
    model: Any, batch: TrainBatch, *, remat: Remat, mesh: Mesh, base: Any = None
) -> Float[Array, ""]:
    """Returns the summed loss of a batch in nats, without a gradient."""
    backend, whole = attention_backend(mesh), on_base(base, model)

    def add(total: Array, micro_batch: TrainBatch) -> tuple[Array, None]:
        loss = answer_loss(
            whole, micro_batch, remat=remat, chunk=_chunk_size(mesh), backend=backend
        )
        return total + loss, None

    micro_batches = TrainBatch(*(jnp.moveaxis(array, 1, 0) for array in batch))
    return jax.lax.scan(add, jnp.zeros((), jnp.float32), micro_batches)[0]


def _chunk_size(mesh: Mesh) -> int:
    """Returns the label positions of a chunk on all devices together.

    It grows with the `data` axis, since every chunk gathers the head and sums its
    gradient over that axis.
    """
    return HEAD_CHUNK * mesh.shape["data"]
