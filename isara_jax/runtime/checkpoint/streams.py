"""Streams of named tensors on the disk, by Orbax, in a part of the memory they need."""

import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import v1

from isara_jax.errors import AGAIN, InputError
from isara_jax.runtime.checkpoint.failures import reading, writing
from isara_jax.runtime.checkpoint.trees import stored_tree
from isara_jax.runtime.files import Tensors, atomic_dir, in_groups

GROUP_BYTES = 2**29


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
    with atomic_dir(path.absolute()) as partial, context:
        session = partial / "session"
        for group in in_groups(tensors, most_bytes=group_bytes):
            with writing(path, again=AGAIN):
                v1.partial.save(session, group)
        with writing(path, again=AGAIN):
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
    with reading(path):
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
    with reading(path), ocp.Checkpointer(handler) as checkpointer:
        tensor: np.ndarray = checkpointer.restore(path.absolute(), args=wanted)[name]
        return tensor
