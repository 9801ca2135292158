"""Shapes in the place of arrays, where a run would have put them on the mesh."""

from collections.abc import Callable
from typing import Any

import jax

from isara_jax.runtime import Mesh, batch_sharding, sharding_for


def made(make: Callable[..., Any], *inputs: Any) -> Any:
    """Returns what a compiled function makes, in the places that it gives it."""
    shapes = jax.eval_shape(make, *inputs)
    places = jax.jit(make).lower(*inputs).compile().output_shardings
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        shapes,
        places,
    )


def over_data(array: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Places an array as `shard_batch` would."""
    place = batch_sharding(array.shape, mesh)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)


def whole(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Describes an array that every device holds whole."""
    place = sharding_for(("time",) * len(shape), shape, mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def replicated(tree: Any, mesh: Mesh) -> Any:
    """Describes arrays that every device holds whole."""
    return jax.tree.map(lambda leaf: whole(leaf.shape, leaf.dtype, mesh), tree)


def key(shape: tuple[int, ...], mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Describes random keys that every device holds."""
    return whole(shape, jax.eval_shape(lambda: jax.random.key(0)).dtype, mesh)
