"""Walks over a model's parameters: NNX variables that name their logical axes."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

Tree = TypeVar("Tree")


def parameters(tree: Any) -> list[nnx.Variable]:
    """Returns the tree's parameters in the order of its leaves."""
    leaves = jax.tree.leaves(tree, is_leaf=_is_parameter)
    return [leaf for leaf in leaves if _is_parameter(leaf)]


def map_parameters(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """Replaces every parameter, and every array outside of one, by the function's."""
    return jax.tree.map(function, tree, is_leaf=_is_parameter)


def map_named_parameters(
    function: Callable[[tuple[str, ...], Any], Any], tree: Tree
) -> Tree:
    """Maps like `map_parameters`; the function gets the parameter's path first.

    The path of a model's `model.layers.q` is `("layers", "q")`.
    """

    def named(path: tuple[Any, ...], parameter: Any) -> Any:
        return function(tuple(key.name for key in path), parameter)

    return jax.tree_util.tree_map_with_path(named, tree, is_leaf=_is_parameter)


def logical_axes(parameter: nnx.Variable) -> tuple[str, ...]:
    """Returns the names of a parameter's axes, as it was created with them."""
    axes: tuple[str, ...] = parameter.get_metadata()["axes"]
    return axes


def dtype_of(tree: Any) -> Any:
    """Returns the dtype of the tree's first array."""
    return jax.tree.leaves(tree)[0].dtype


def _is_parameter(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)
