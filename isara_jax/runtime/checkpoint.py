"""Arrays on the disk, by Orbax: trees, and streams of named tensors.

Both are written whole or not at all. A tree is read back into the shapes and shardings
of a target, a tensor of a stream by its name.
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import v1

from isara_jax.errors import AGAIN, GO_ON, EnvironmentFailure, InputError
from isara_jax.runtime.folders import appearing
from isara_jax.runtime.streams import Tensors, in_groups

Tree = TypeVar("Tree")

GROUP_BYTES = 2**29


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
    with _writing(path, GO_ON), _quiet(), _checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), args=ocp.args.StandardSave(named))


def restore_tree(path: Path, target: Tree) -> Tree:
    """Reads a tree of the target's structure, dtypes and shardings.

    Args:
      path: a folder that `save_tree` wrote, on this mesh or another.
      target: arrays or `jax.ShapeDtypeStruct` with shardings.

    Raises:
      InputError: the folder is missing or damaged, or holds another tree.
    """
    names = _by_path(target)
    with _reading(path), _quiet(), _checkpointer() as checkpointer:
        _refuse_other_tree(path, _stored(path), names)
        read = checkpointer.restore(
            path.absolute(), args=ocp.args.StandardRestore(names)
        )
    structure = jax.tree_util.tree_structure(target)
    return jax.tree_util.tree_unflatten(structure, [read[name] for name in names])


def save_stream(
    path: Path, tensors: Tensors, *, group_bytes: int = GROUP_BYTES
) -> None:
    """Writes a flat tree of named tensors as they come, uncompressed.

    About `group_bytes` are in memory at a time. The folder is of `save_tree`'s format
    and appears by one rename when it is whole.

    Raises:
      FileExistsError: there is a checkpoint already.
      EnvironmentFailure: the disk does not take it.
    """
    if path.exists():
        raise FileExistsError(f"{path}: exists already")
    context = v1.Context()
    context.array.saving.use_compression = False  # weights are noise
    # Where the devices of a later reader differ, a stored sharding is a wrong one.
    context.array.saving.enable_write_sharding_file = False
    with appearing(path.absolute()) as partial, context:
        session = partial / "session"
        for group in in_groups(tensors, most_bytes=group_bytes):
            with _writing(path, AGAIN), _quiet():
                v1.partial.save(session, group)
        with _writing(path, AGAIN), _quiet():
            v1.partial.finalize(session)
            # What lies around the tree says which classes of Orbax's wrote it.
            for file in (session / "state").iterdir():
                file.rename(partial / file.name)
            shutil.rmtree(session)


def stored_tensors(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of what `save_stream` wrote, by their names.

    Raises:
      InputError: there is no whole checkpoint, or it is no flat tree of arrays.
    """
    with _reading(path):
        stored = _stored(path)
        if not isinstance(stored, dict):
            raise InputError(f"{path}: no whole checkpoint there")
        for name, value in stored.items():
            if not hasattr(value, "shape"):
                raise InputError(f"{path}: {name!r} is no array of a flat tree")
        return {
            name: jax.ShapeDtypeStruct(value.shape, value.dtype)
            for name, value in stored.items()
        }


def read_tensor(path: Path, name: str) -> np.ndarray:
    """Reads one tensor of what `save_stream` wrote into the host's memory.

    Raises:
      InputError: it is damaged.
    """
    wanted = ocp.args.PyTreeRestore(
        item={name: 0},
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray)},
        partial_restore=True,
    )
    handler = ocp.PyTreeCheckpointHandler()
    with _reading(path), _quiet(), ocp.Checkpointer(handler) as checkpointer:
        tensor: np.ndarray = checkpointer.restore(path.absolute(), args=wanted)[name]
        return tensor


def _stored(path: Path) -> Any:
    with _quiet(), _checkpointer() as checkpointer:
        stored = checkpointer.metadata(path.absolute()).item_metadata
    return None if stored is None else stored.tree


@contextmanager
def _writing(path: Path, again: str) -> Iterator[None]:
    """Says a disk's failure in one sentence."""
    try:
        with _one_failure():
            yield
    except (ValueError, OSError) as error:
        raise EnvironmentFailure(
            f"{path}: cannot be written ({_first_line(error).rpartition(': ')[2]}): "
            f"{again}"
        ) from None


@contextmanager
def _one_failure() -> Iterator[None]:
    """Lets the first failing read or write of several speak for all.

    Orbax closes its event loop at the first one. Each of the others finds the loop
    closed, at any time after, and would print a traceback of its own: what drops those
    is taken away only where nothing failed.
    """
    shown = sys.unraisablehook

    def but_late_ones(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = but_late_ones
    logger = logging.getLogger("asyncio")
    logger.addFilter(_is_no_late_one)
    yield
    logger.removeFilter(_is_no_late_one)
    sys.unraisablehook = shown


def _is_no_late_one(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with _one_failure():
            yield
    except (InputError, MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # noqa: BLE001 - Orbax raises it bare for damaged arrays
        raise InputError(
            f"{path}: a damaged checkpoint ({_first_line(error):.200})"
        ) from None


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
