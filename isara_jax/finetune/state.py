"""The training state: created on the mesh, or abstract to restore one into."""

import functools
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.optimizer import empty_history, make_optimizer
from isara_jax.runtime import (
    Mesh,
    dtype_of,
    logical_axes,
    map_parameters,
    model_shardings,
    sharding_for,
)

Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class BestModel:
    """The model of the best epoch, and its validation loss in nats a token.

    `epochs_without_improvement` is the number of epochs since, a scalar array.
    """

    model: Any
    loss: Any
    epochs_without_improvement: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What a finetuning needs to resume, beside its arguments.

    `step` counts the steps that were taken. `model` holds the master parameters.
    `loss_history` is None if spikes are not skipped, `best` without early stopping.
    """

    step: Any
    model: Any
    optimizer: Any
    loss_history: Any = None
    best: Any = None


def initial_state(model: Any, *, config: FinetuneConfig, mesh: Mesh) -> TrainState:
    """Returns the state before step 1: master parameters, and an empty optimizer state.

    The optimizer's moments have the shardings of the parameters.
    """
    dtype = dtype_of(model)
    model = cast(model, config.master_dtype)
    model = jax.device_put(model, model_shardings(model, mesh))
    return TrainState(
        model=model, **_state_beside_model(model, config=config, mesh=mesh, dtype=dtype)
    )


def abstract_state(model: Any, *, config: FinetuneConfig, mesh: Mesh) -> TrainState:
    """Returns the abstract state, with shardings, to restore one into.

    The model may be abstract: its shapes and dtype are read.
    """
    dtype = dtype_of(model)

    def state(model: Any) -> TrainState:
        master = cast(model, config.master_dtype)
        beside = _state_beside_model(master, config=config, mesh=mesh, dtype=dtype)
        return TrainState(model=master, **beside)

    shapes = jax.eval_shape(state, model)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(
            shape.shape, shape.dtype, sharding=sharding
        ),
        shapes,
        state_shardings(shapes, mesh),
    )


@functools.partial(jax.jit, static_argnames=("config", "mesh", "dtype"))
def _state_beside_model(
    master: Any, *, config: FinetuneConfig, mesh: Mesh, dtype: Any
) -> dict[str, Any]:
    """Returns the fields of a state other than the model."""
    parts: dict[str, Any] = {
        "step": jnp.zeros((), jnp.int32),
        "optimizer": make_optimizer(config).init(cast(master, jnp.float32)),
    }
    if config.spike_factor:
        parts["loss_history"] = empty_history()
    if config.early_stop_epochs:
        parts["best"] = BestModel(
            model=copy_as(master, dtype),
            loss=jnp.full((), jnp.inf, jnp.float32),
            epochs_without_improvement=jnp.zeros((), jnp.int32),
        )
    return jax.lax.with_sharding_constraint(parts, state_shardings(parts, mesh))


def cast(tree: Tree, dtype: Any) -> Tree:
    """Converts the arrays of another dtype; others stay the same arrays."""
    return jax.tree.map(
        lambda array: array if array.dtype == dtype else array.astype(dtype), tree
    )


@functools.partial(jax.jit, static_argnums=1)
def copy_as(tree: Tree, dtype: Any) -> Tree:
    """Converts into new buffers, which donating the tree's does not affect."""
    return jax.tree.map(lambda array: jnp.array(array, dtype, copy=True), tree)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns the shardings of a state.

    Moments are sharded like their parameters. All else is replicated.
    """

    def sharding(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return sharding_for((), (), mesh)
        if leaf.get_value().ndim == len(logical_axes(leaf)):
            return model_shardings(leaf, mesh)
        # Adafactor's row and column statistics have lost an axis of the parameter.
        return leaf.replace(sharding_for((), (), mesh))

    return map_parameters(sharding, state)
