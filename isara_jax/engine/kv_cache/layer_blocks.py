"""A model's layers in blocks, scanned within a block and unrolled between blocks.

On CPU and GPU every layer is a block of its own: a scan copies a layer's weights and
cache out of the stacked arrays before each product and kernel, which costs more than
all else in a decode step. On TPU, whose programs read them in place, all layers are one
block, which compiles in a time that does not grow with depth.
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
    """Splits the layers as suits the mesh's platform, the default one without a mesh.

    Off TPU that copies them; where memory is too short for a copy, they stay in one
    block there as well. `free` are the bytes of a device, asked for unless given.
    """
    free = free_bytes() if free is None else free
    platform = platform_of(mesh) if mesh is not None else jax.default_backend()
    if platform == "tpu" or (free is not None and 2 * _size(model, mesh) > free):
        return LayerBlocks(model=model, blocks=(model.layers,))
    count = layers_of(model.layers)
    blocks = tuple(_slice(model.layers, jnp.int32(index)) for index in range(count))
    return LayerBlocks(model=model, blocks=blocks)


def block_sizes(layer_blocks: LayerBlocks) -> tuple[int, ...]:
    """Returns how many layers each block holds."""
    return tuple(layers_of(block) for block in layer_blocks.blocks)


def _size(model: Decoder, mesh: Mesh | None) -> int:
    """Returns the bytes of the layers on a device; those on CPU share all memory."""
    leaves = jax.tree.leaves(model.layers)
    size: int = sum(array.size * array.dtype.itemsize for array in leaves)
    return size if mesh is None or platform_of(mesh) == "cpu" else size // mesh.size


@jax.jit
def _slice(layers: Any, index: Int[Array, ""]) -> Any:
    return jax.tree.map(
        lambda array: jax.lax.dynamic_slice_in_dim(array, index, 1), layers
    )
