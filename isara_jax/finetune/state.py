"""The training state: created, or described for a restore, in its shardings."""

import functools
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from isara_jax.finetune.optimizer import FinetuneConfig, make_optimizer
from isara_jax.runtime.mesh import Mesh, model_shardings, sharding_for

Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that a stopped finetuning needs to go on, besides its arguments."""

    step: Any
    model: Any
    optimizer: Any


def initial_state(model: Any, *, config: FinetuneConfig, mesh: Mesh) -> TrainState:
    """Puts the model on the mesh in fp32, beside moments of 0 with its shardings."""
    model = cast(model, jnp.float32)
    model = jax.device_put(model, model_shardings(model, mesh))
    step, optimizer = _start(model, config=config, mesh=mesh)
    return TrainState(step=step, model=model, optimizer=optimizer)


def abstract_state(model: Any, *, config: FinetuneConfig, mesh: Mesh) -> TrainState:
    """Returns the state's shapes and shardings, to restore one into.

    Of the model, which may be abstract, only the shapes are read.
    """

    def state(model: Any) -> TrainState:
        master = cast(model, jnp.float32)
        step, optimizer = _start(master, config=config, mesh=mesh)
        return TrainState(step=step, model=master, optimizer=optimizer)

    shapes = jax.eval_shape(state, model)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(
            shape.shape, shape.dtype, sharding=sharding
        ),
        shapes,
        state_shardings(shapes, mesh),
    )


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _start(model: Any, *, config: FinetuneConfig, mesh: Mesh) -> tuple[Array, Any]:
    start = (jnp.zeros((), jnp.int32), make_optimizer(config).init(model))
    return jax.lax.with_sharding_constraint(start, state_shardings(start, mesh))


def cast(tree: Tree, dtype: Any) -> Tree:
    """Converts what is of another dtype; the same arrays where nothing is."""
    return jax.tree.map(
        lambda array: array if array.dtype == dtype else array.astype(dtype), tree
    )


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Splits moments like their parameters; counters are on every device."""

    def of(leaf: Any) -> Any:
        if isinstance(leaf, nnx.Variable):
            return model_shardings(leaf, mesh)
        return sharding_for((), (), mesh)

    return jax.tree.map(of, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
