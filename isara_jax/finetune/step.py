"""An optimizer step: one compiled call, which reuses the state's buffers."""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data import Batch
from isara_jax.finetune.loss import HEAD_CHUNK, answer_loss
from isara_jax.finetune.optimizer import is_spike, make_optimizer, noted, round_tree
from isara_jax.finetune.state import TrainState, cast, state_shardings
from isara_jax.models import Remat
from isara_jax.models.attention import attention_backend
from isara_jax.models.lora import on_base
from isara_jax.runtime import Mesh, model_shardings

Model = TypeVar("Model")


class Told(NamedTuple):
    """What a step tells, on the device.

    The mean loss, the gradient's norm before clipping, the norm of the change over that
    of the parameters, and how many steps in a row were not taken.
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
    batch: Batch,
    *,
    learning_rate: Float[Any, ""],
    key: Key[Array, ""],
    config: FinetuneConfig,
    dtype: Any,
    mesh: Mesh,
    base: Any = None,
) -> tuple[TrainState, Told]:
    """Takes one step, or leaves the parameters alone where the loss is a spike.

    Model and gradients are of `dtype`; `key` rounds bf16 masters. With a `base`, the
    state's model are adapters, and the base stays as it is.
    """
    loss, gradients = mean_gradients(
        cast(state.model, dtype), batch, base=base, remat=config.remat, mesh=mesh
    )

    def taken() -> tuple[Any, Any, Array]:
        master = cast(state.model, jnp.float32)
        updates, optimizer = make_optimizer(config).update(
            gradients, state.optimizer, master
        )
        model = jax.tree.map(
            lambda value, update: value - learning_rate * update, master, updates
        )
        ratio = learning_rate * optax.tree.norm(updates) / optax.tree.norm(master)
        return round_tree(model, state.model, key), optimizer, ratio

    recent, spikes = state.recent, jnp.zeros((), jnp.int32)
    if recent is None:
        model, optimizer, ratio = taken()
    else:
        spike = is_spike(recent, loss, factor=config.spike_factor)
        recent = noted(recent, loss, spike=spike)
        spikes = recent.spikes
        model, optimizer, ratio = jax.lax.cond(
            spike, lambda: (state.model, state.optimizer, jnp.zeros(())), taken
        )
    new = TrainState(
        step=state.step + 1,
        model=model,
        optimizer=optimizer,
        recent=recent,
        best=state.best,
    )
    new = jax.lax.with_sharding_constraint(new, state_shardings(new, mesh))
    return new, Told(loss, optax.tree.norm(gradients), ratio, spikes)


def mean_gradients(
    model: Model, batch: Batch, *, remat: Remat, mesh: Mesh, base: Any = None
) -> tuple[Float[Array, ""], Model]:
    """Averages over the answer tokens of the whole step, whatever its micro-batches.

    The gradients are fp32, by the model or by the adapters on the base: nothing is
    computed that a gradient by the base alone would need.
    """
    tokens, backend = jnp.sum(batch.weights), attention_backend(mesh)

    def share_of_mean(model: Model, micro_batch: Batch) -> Array:
        whole = on_base(base, model)
        loss = answer_loss(
            whole, micro_batch, remat=remat, chunk=_chunk(mesh), backend=backend
        )
        return loss / tokens

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


@functools.partial(jax.jit, static_argnames=("remat", "mesh"))
def total_loss(
    model: Any, batch: Batch, *, remat: Remat, mesh: Mesh, base: Any = None
) -> Float[Array, ""]:
    """Sums the losses of a batch, in nats, without a gradient."""
    backend, whole = attention_backend(mesh), on_base(base, model)

    def add(total: Array, micro_batch: Batch) -> tuple[Array, None]:
        loss = answer_loss(
            whole, micro_batch, remat=remat, chunk=_chunk(mesh), backend=backend
        )
        return total + loss, None

    micro_batches = Batch(*(jnp.moveaxis(array, 1, 0) for array in batch))
    return jax.lax.scan(add, jnp.zeros((), jnp.float32), micro_batches)[0]


def _chunk(mesh: Mesh) -> int:
    """Returns the positions whose logits exist at one time, on all devices together.

    Each chunk gathers the head and sums its gradient over the devices of `data`.
    """
    return HEAD_CHUNK * mesh.shape["data"]
