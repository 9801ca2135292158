"""Checkpoints of named tensors, written and read in a part of their memory."""

import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import v1

from isara_jax.errors import AGAIN, InputError
from isara_jax.runtime.checkpoint.failures import read_errors, write_errors
from isara_jax.runtime.checkpoint.trees import stored_tree
from isara_jax.runtime.files import Tensors, atomic_dir, group_by_bytes

GROUP_BYTES = 2**29


def save_stream(
    path: Path, tensors: Tensors, *, group_bytes: int = GROUP_BYTES
) -> None:
    """Writes named tensors as a flat tree, uncompressed, in the order they come.

    About `group_bytes` are in memory at a time. The folder has the format of
    `save_tree`, and is renamed to `path` when it is complete.

    Raises:
      FileExistsError: there is a checkpoint already.
      EnvironmentFailure: the disk does not take it.
    """
    if path.exists():
        raise FileExistsError(f"{path}: exists already")
    context = v1.Context()
    context.array.saving.use_compression = False  # weights do not compress
    # A later reader may have other devices.
    context.array.saving.enable_write_sharding_file = False
    with atomic_dir(path.absolute()) as partial, context:
        session = partial / "session"
        for group in group_by_bytes(tensors, most_bytes=group_bytes):
            with write_errors(path, advice=AGAIN):
                v1.partial.save(session, group)
        with write_errors(path, advice=AGAIN):
            v1.partial.finalize(session)
            # The files around the tree name the Orbax classes that wrote it.
            for file in (session / "state").iterdir():
                file.rename(partial / file.name)
            shutil.rmtree(session)


def stored_tensors(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the abstract tensors of a checkpoint of `save_stream`, by name.

    Raises:
      InputError: there is no complete checkpoint, or it is no flat tree of arrays.
    """
    with read_errors(path):
        stored = stored_tree(path)
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
    """Reads one tensor of a checkpoint of `save_stream` into host memory.

    Raises:
      InputError: it is damaged.
    """
    wanted = ocp.args.PyTreeRestore(
        item={name: 0},
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray)},
        partial_restore=True,
    )
    handler = ocp.PyTreeCheckpointHandler()
    with read_errors(path), ocp.Checkpointer(handler) as checkpointer:
        tensor: np.ndarray = checkpointer.restore(path.absolute(), args=wanted)[name]
        return tensor
