"""Checkpoints of trees of arrays, written in the background if wanted."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from isara_jax.errors import GO_ON, InputError
from isara_jax.runtime.checkpoint.digests import validate_digests, write_digests
from isara_jax.runtime.checkpoint.failures import (
    read_errors,
    silence_orbax,
    write_errors,
)

Tree = TypeVar("Tree")


class TreeWriter:
    """Writes trees in the background, one after the other.

    A folder is renamed to its path when it is complete, with digests of its files.
    """

    def __init__(self) -> None:
        self._in_flight: tuple[Path, ocp.AsyncCheckpointer] | None = None
        self._silenced = ExitStack()

    def save(self, path: Path, tree: Any) -> None:
        """Copies the arrays to host memory and returns while they are written.

        They may then be donated: on CPU, a donated array that is still being written is
        copied. Waits for the previous tree, and removes what an interrupted save has
        left beside the path.

        Raises:
          FileExistsError: there is a checkpoint already.
          EnvironmentFailure: this write or the previous one failed.
        """
        self.wait()
        if path.exists():
            raise FileExistsError(f"{path}: exists already")
        named = _by_path(tree)
        for leftover in path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover)
        self._silenced.enter_context(silence_orbax())
        checkpointer = _writer()
        with write_errors(path, advice=GO_ON):
            checkpointer.save(path.absolute(), args=_Save(named))
        self._in_flight = path, checkpointer

    def wait(self) -> None:
        """Waits until everything is on the disk.

        Raises:
          EnvironmentFailure: a write failed.
        """
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is None:
            return
        path, checkpointer = in_flight
        with write_errors(path, advice=GO_ON):
            checkpointer.close()
        self._silenced.close()


def save_tree(path: Path, tree: Any) -> None:
    """Writes the tree's arrays; the folder is renamed to its path when complete.

    What an interrupted save has left beside the path is removed first.

    Raises:
      FileExistsError: there is a checkpoint already.
      EnvironmentFailure: the write failed.
    """
    writer = TreeWriter()
    writer.save(path, tree)
    writer.wait()


def restore_tree(path: Path, target: Tree) -> Tree:
    """Restores a tree with the target's structure, dtypes and shardings.

    Args:
      path: a folder of `save_tree`, written on this mesh or another.
      target: arrays, or `jax.ShapeDtypeStruct` with shardings.

    Raises:
      InputError: the folder is missing or damaged, or holds another tree.
    """
    names = _by_path(target)
    with read_errors(path), _reader() as checkpointer:
        validate_digests(path)
        _validate_structure(path, stored_tree(path), names)
        read = checkpointer.restore(
            path.absolute(), args=ocp.args.StandardRestore(names)
        )
    structure = jax.tree_util.tree_structure(target)
    return jax.tree_util.tree_unflatten(structure, [read[name] for name in names])


def stored_tree(path: Path) -> Any:
    """Returns Orbax's metadata of the arrays, or None if no tree is complete."""
    with _reader() as checkpointer:
        stored = checkpointer.metadata(path.absolute()).item_metadata
    return None if stored is None else stored.tree


class _Handler(ocp.PyTreeCheckpointHandler):
    """Writes arrays, and then the digests of their files."""

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        write_digests(Path(directory))


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
class _Save(ocp.args.PyTreeSave):
    """Orbax finds a handler by the class of its arguments."""


def _writer() -> ocp.AsyncCheckpointer:
    # Orbax would wait minutes for a folder that its thread cannot create, and again at
    # the end of the process.
    options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    handler = _Handler(use_compression=False)  # weights do not compress
    return ocp.AsyncCheckpointer(handler, async_options=options)


def _reader() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _validate_structure(path: Path, stored: Any, wanted: dict[str, Any]) -> None:
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


def _by_path(tree: Any) -> dict[str, Any]:
    """Names each array by its path, `layers.q`: readable without this package."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {_name(path): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two arrays of the tree have one name")
    return named


def _name(path: tuple[Any, ...]) -> str:
    keys = [
        str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key))))
        for key in path
    ]
    # NNX ends every parameter's path with the key `value`.
    return ".".join(key for key in keys if key != "value")
