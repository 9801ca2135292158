"""A model's layers cut into blocks.

Within a block the layers are scanned; the blocks follow each other in the program. On
CPU and GPU every layer is its own block: a scan copies a layer's weights and cache out
of the stack before each product and kernel, which for a token costs more than all else.
On TPU, whose programs read them where they lie, all layers are one block, which
compiles in a time that does not grow with depth.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from isara_jax.models import Decoder, layers_of
from isara_jax.runtime import Mesh, platform_of
from isara_jax.runtime.hardware import free_bytes


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LayerBlocks:
    """A model, and its layers as blocks of [l, ...] arrays, l layers each."""

    model: Decoder
    blocks: tuple[Any, ...]


def make_layer_blocks(
    model: Decoder, *, mesh: Mesh | None = None, free: int | None = None
) -> LayerBlocks:
    """Cuts the layers as suits the platform, the default one without a mesh.

    Off TPU that copies them; where memory is too short for a copy, they stay in one
    block there as well. `free` are the bytes of a device, asked for unless given.
    """
    free = free_bytes() if free is None else free
    platform = platform_of(mesh) if mesh is not None else jax.default_backend()
    if platform == "tpu" or (free is not None and 2 * _size(model, mesh) > free):
        return LayerBlocks(model=model, blocks=(model.layers,))
    count = layers_of(model.layers)
    blocks = tuple(_cut(model.layers, jnp.int32(number)) for number in range(count))
    return LayerBlocks(model=model, blocks=blocks)


def block_sizes(stack: LayerBlocks) -> tuple[int, ...]:
    """Returns how many layers each block holds."""
    return tuple(layers_of(block) for block in stack.blocks)


def _size(model: Decoder, mesh: Mesh | None) -> int:
    """Returns the bytes of the layers on a device; those on CPU share all memory."""
    leaves = jax.tree.leaves(model.layers)
    size: int = sum(array.size * array.dtype.itemsize for array in leaves)
    return size if mesh is None or platform_of(mesh) == "cpu" else size // mesh.size


@jax.jit
def _cut(layers: Any, number: Int[Array, ""]) -> Any:
    return jax.tree.map(
        lambda array: jax.lax.dynamic_slice_in_dim(array, number, 1), layers
    )
