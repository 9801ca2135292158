"""The training state: created, or described for a restore, in its shardings."""

import functools
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.optimizer import make_optimizer, no_losses
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
class Best:
    """The model of the best epoch so far, its held-out loss, and the epochs since."""

    model: Any
    loss: Any
    stale: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that a stopped finetuning needs to go on, besides its arguments.

    `recent` is there where spikes are watched for, `best` where it may stop early.
    """

    step: Any
    model: Any
    optimizer: Any
    recent: Any = None
    best: Any = None


def initial_state(model: Any, *, config: FinetuneConfig, mesh: Mesh) -> TrainState:
    """Puts the model on the mesh as master, beside moments of 0 with its shardings."""
    dtype = dtype_of(model)
    model = cast(model, config.master_dtype)
    model = jax.device_put(model, model_shardings(model, mesh))
    return TrainState(
        model=model, **_beside(model, config=config, mesh=mesh, dtype=dtype)
    )


def abstract_state(model: Any, *, config: FinetuneConfig, mesh: Mesh) -> TrainState:
    """Returns the state's shapes and shardings, to restore one into.

    Of the model, which may be abstract, only the shapes are read.
    """
    dtype = dtype_of(model)

    def state(model: Any) -> TrainState:
        master = cast(model, config.master_dtype)
        beside = _beside(master, config=config, mesh=mesh, dtype=dtype)
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
def _beside(
    master: Any, *, config: FinetuneConfig, mesh: Mesh, dtype: Any
) -> dict[str, Any]:
    """Returns what a state holds besides the model."""
    parts: dict[str, Any] = {
        "step": jnp.zeros((), jnp.int32),
        "optimizer": make_optimizer(config).init(cast(master, jnp.float32)),
    }
    if config.spike_factor:
        parts["recent"] = no_losses()
    if config.early_stop_epochs:
        parts["best"] = Best(
            model=copied(master, dtype),
            loss=jnp.full((), jnp.inf, jnp.float32),
            stale=jnp.zeros((), jnp.int32),
        )
    return jax.lax.with_sharding_constraint(parts, state_shardings(parts, mesh))


def cast(tree: Tree, dtype: Any) -> Tree:
    """Converts what is of another dtype; the same arrays where nothing is."""
    return jax.tree.map(
        lambda array: array if array.dtype == dtype else array.astype(dtype), tree
    )


@functools.partial(jax.jit, static_argnums=1)
def copied(tree: Tree, dtype: Any) -> Tree:
    """Converts into buffers of its own, whatever becomes of the tree's."""
    return jax.tree.map(lambda array: jnp.array(array, dtype, copy=True), tree)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Splits moments like their parameters; all else is whole on every device."""

    def sharding(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return sharding_for((), (), mesh)
        if leaf.get_value().ndim == len(logical_axes(leaf)):
            return model_shardings(leaf, mesh)
        # Adafactor's row and column statistics have lost an axis of the parameter.
        return leaf.replace(sharding_for((), (), mesh))

    return map_parameters(sharding, state)
