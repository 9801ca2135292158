"""Arrays on the disk, by Orbax: trees, and streams of named tensors.

Both are written whole or not at all. A tree is read back into the shapes and shardings
of a target, a tensor of a stream by its name.
"""

from isara_jax.runtime.checkpoint.streams import (
    read_tensor,
    save_stream,
    stored_tensors,
)
from isara_jax.runtime.checkpoint.trees import TreeWriter, restore_tree, save_tree

__all__ = [
    "TreeWriter",
    "read_tensor",
    "restore_tree",
    "save_stream",
    "save_tree",
    "stored_tensors",
]
