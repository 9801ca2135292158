"""Trees of arrays on the disk, by Orbax; the caller may go on while one is written."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from isara_jax.errors import GO_ON, InputError
from isara_jax.runtime.checkpoint.digests import validate_digests, write_digests
from isara_jax.runtime.checkpoint.failures import reading, silence_orbax, writing

Tree = TypeVar("Tree")


class TreeWriter:
    """Writes one tree after the other while the caller goes on.

    A folder appears by one rename when it is whole, with digests of its files.
    """

    def __init__(self) -> None:
        self._in_flight: tuple[Path, ocp.AsyncCheckpointer] | None = None
        self._hushed = ExitStack()

    def save(self, path: Path, tree: Any) -> None:
        """Takes the arrays into the host's memory and returns while they are written.

        They may be donated then: where the host's memory is the device's, a donated
        array that is still being written is copied. Waits for the tree before. What an
        interrupted save left beside the path is removed first.

        Raises:
          FileExistsError: there is a checkpoint already.
          EnvironmentFailure: the disk does not take it, or has not taken the one
            before.
        """
        self.wait()
        if path.exists():
            raise FileExistsError(f"{path}: exists already")
        named = _by_path(tree)
        for left in path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*"):
            shutil.rmtree(left)
        self._hushed.enter_context(silence_orbax())
        checkpointer = _writer()
        with writing(path, again=GO_ON):
            checkpointer.save(path.absolute(), args=_Save(named))
        self._in_flight = path, checkpointer

    def wait(self) -> None:
        """Returns when all is on the disk.

        Raises:
          EnvironmentFailure: the disk does not take it.
        """
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is None:
            return
        path, checkpointer = in_flight
        with writing(path, again=GO_ON):
            checkpointer.close()
        self._hushed.close()


def save_tree(path: Path, tree: Any) -> None:
    """Writes the tree's arrays; the folder appears by one rename when it is whole.

    What an interrupted save left beside it is removed first.

    Raises:
      FileExistsError: there is a checkpoint already.
      EnvironmentFailure: the disk does not take it.
    """
    writer = TreeWriter()
    writer.save(path, tree)
    writer.wait()


def restore_tree(path: Path, target: Tree) -> Tree:
    """Reads a tree of the target's structure, dtypes and shardings.

    Args:
      path: a folder that `save_tree` wrote, on this mesh or another.
      target: arrays or `jax.ShapeDtypeStruct` with shardings.

    Raises:
      InputError: the folder is missing or damaged, or holds another tree.
    """
    names = _by_path(target)
    with reading(path), _reader() as checkpointer:
        validate_digests(path)
        _refuse_other_tree(path, stored_tree(path), names)
        read = checkpointer.restore(
            path.absolute(), args=ocp.args.StandardRestore(names)
        )
    structure = jax.tree_util.tree_structure(target)
    return jax.tree_util.tree_unflatten(structure, [read[name] for name in names])


def stored_tree(path: Path) -> Any:
    """Returns what Orbax tells of the arrays, or None where no whole tree is."""
    with _reader() as checkpointer:
        stored = checkpointer.metadata(path.absolute()).item_metadata
    return None if stored is None else stored.tree


class _Handler(ocp.PyTreeCheckpointHandler):
    """Writes arrays, and when all are there the digests of their files."""

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        write_digests(Path(directory))


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
class _Save(ocp.args.PyTreeSave):
    """Orbax finds a handler by the class of its arguments."""


def _writer() -> ocp.AsyncCheckpointer:
    # A folder that one of its threads were to make, and cannot, would be waited for for
    # minutes, at the process's end too.
    options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    handler = _Handler(use_compression=False)  # weights are noise
    return ocp.AsyncCheckpointer(handler, async_options=options)


def _reader() -> ocp.Checkpointer:
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
