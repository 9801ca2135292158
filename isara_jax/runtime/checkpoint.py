"""Trees of arrays on the disk, by Orbax.

A tree is written whole or not at all, and read back into the shapes and shardings of a
target.
"""

import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from isara_jax.errors import InputError

Tree = TypeVar("Tree")


def save_tree(path: Path, tree: Any) -> None:
    """Writes the tree's arrays; the folder appears by one rename when it is whole.

    What an interrupted save left beside it is removed first.
    """
    for left in path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*"):
        shutil.rmtree(left)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), _by_path(tree))


def restore_tree(path: Path, target: Tree) -> Tree:
    """Reads a tree of the target's structure, dtypes and shardings.

    Args:
      path: a folder that `save_tree` wrote, on this mesh or another.
      target: arrays or `jax.ShapeDtypeStruct` with shardings.

    Raises:
      InputError: the folder is missing or damaged, or holds another tree.
    """
    leaves, structure = jax.tree_util.tree_flatten(target)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            read = checkpointer.restore(path.absolute(), _by_path(target))
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path}: no whole checkpoint of this run ({reason})"
        ) from None
    names = list(_by_path(target))
    if len(names) != len(leaves):
        raise InputError(f"{path}: two arrays of the tree have one name")
    return jax.tree_util.tree_unflatten(structure, [read[name] for name in names])


def _by_path(tree: Any) -> dict[str, Any]:
    """Names each array by its place, `layers.q`: readable without this package."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    words = [
        str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key))))
        for key in path
    ]
    # NNX ends every parameter's path with the word `value`.
    return ".".join(word for word in words if word != "value")
