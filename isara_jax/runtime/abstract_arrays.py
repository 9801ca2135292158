"""Abstract arrays: shapes, dtypes and shardings of arrays that do not exist."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from isara_jax.runtime.mesh import Mesh, batch_sharding, sharding_for


def abstract_outputs(function: Callable[..., Any], *inputs: Any) -> Any:
    """Returns what a function returns, with the shardings of its compiled program."""
    shapes = jax.eval_shape(function, *inputs)
    shardings = jax.jit(function).lower(*inputs).compile().output_shardings
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )


def abstract_sharded(
    shape: tuple[int, ...], dtype: Any, mesh: Mesh
) -> jax.ShapeDtypeStruct:
    """Returns an array that is sharded as `shard_batch` does it."""
    sharding = batch_sharding(shape, mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def abstract_replicated(
    shape: tuple[int, ...], dtype: Any, mesh: Mesh
) -> jax.ShapeDtypeStruct:
    """Returns an array that every device holds whole."""
    sharding = sharding_for(("time",) * len(shape), shape, mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def abstract_replicated_tree(tree: Any, mesh: Mesh) -> Any:
    """Returns arrays of a tree's shapes and dtypes that every device holds whole."""
    return jax.tree.map(
        lambda leaf: abstract_replicated(leaf.shape, leaf.dtype, mesh), tree
    )


def abstract_keys(shape: tuple[int, ...], mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Returns random keys that every device holds."""
    dtype = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return abstract_replicated(shape, dtype, mesh)


def bytes_on_device(tree: Any) -> int:
    """Returns the bytes of abstract arrays on a device, by their shardings."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
        total += math.prod(shape) * _bits(leaf.dtype) // 8
    return total


def _bits(dtype: Any) -> int:
    """Returns the bits of a number; those of less than a byte are packed."""
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    bits: int = jnp.iinfo(dtype).bits if is_integer else 8 * dtype.itemsize
    return bits
