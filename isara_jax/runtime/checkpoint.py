"""Trees of arrays on the disk, by Orbax.

A tree is written whole or not at all, and read back into the shapes and shardings of a
target.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from isara_jax.errors import GO_ON, EnvironmentFailure, InputError

Tree = TypeVar("Tree")


def save_tree(path: Path, tree: Any) -> None:
    """Writes the tree's arrays; the folder appears by one rename when it is whole.

    What an interrupted save left beside it is removed first.

    Raises:
      FileExistsError: there is a checkpoint already.
      EnvironmentFailure: the disk does not take it.
    """
    if path.exists():
        raise FileExistsError(f"{path}: exists already")
    named = _by_path(tree)
    for left in path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*"):
        shutil.rmtree(left)
    try:
        with _quiet(), _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), args=ocp.args.StandardSave(named))
    except (ValueError, OSError) as error:
        raise EnvironmentFailure(
            f"{path}: cannot be written ({_first_line(error).rpartition(': ')[2]}): "
            f"{GO_ON}"
        ) from None


def restore_tree(path: Path, target: Tree) -> Tree:
    """Reads a tree of the target's structure, dtypes and shardings.

    Args:
      path: a folder that `save_tree` wrote, on this mesh or another.
      target: arrays or `jax.ShapeDtypeStruct` with shardings.

    Raises:
      InputError: the folder is missing or damaged, or holds another tree.
    """
    names = _by_path(target)
    try:
        with _quiet(), _checkpointer() as checkpointer:
            stored = checkpointer.metadata(path.absolute()).item_metadata
            _refuse_other_tree(path, None if stored is None else stored.tree, names)
            read = checkpointer.restore(
                path.absolute(), args=ocp.args.StandardRestore(names)
            )
    except (InputError, MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # noqa: BLE001 - Orbax raises it bare for damaged arrays
        raise InputError(
            f"{path}: a damaged checkpoint ({_first_line(error):.200})"
        ) from None
    structure = jax.tree_util.tree_structure(target)
    return jax.tree_util.tree_unflatten(structure, [read[name] for name in names])


def _checkpointer() -> ocp.Checkpointer:
    # Not the asynchronous one: where a disk fails, its threads keep the process for
    # minutes, and nothing here goes on before the tree is written.
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _refuse_other_tree(path: Path, stored: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(stored, dict):
        raise InputError(f"{path}: no whole checkpoint there")
    for name in sorted(stored.keys() ^ wanted.keys()):
        fault = "lacks" if name in wanted else "holds a further array,"
        raise InputError(f"{path}: another tree's checkpoint; it {fault} {name!r}")
    for name, array in wanted.items():
        if stored[name].shape != array.shape:
            raise InputError(
                f"{path}: {name!r} has the shape {list(stored[name].shape)}, expected "
                f"{list(array.shape)}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax's log, with the tracebacks of its threads, off the terminal.

    What goes wrong there is raised here as well.
    """

    def of_others(record: logging.LogRecord) -> bool:
        return "orbax" not in Path(record.pathname).parts

    logger = logging.getLogger("absl")
    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _by_path(tree: Any) -> dict[str, Any]:
    """Names each array by its place, `layers.q`: readable without this package."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {_name(path): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two arrays of the tree have one name")
    return named


def _name(path: tuple[Any, ...]) -> str:
    words = [
        str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key))))
        for key in path
    ]
    # NNX ends every parameter's path with the word `value`.
    return ".".join(word for word in words if word != "value")
