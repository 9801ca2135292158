"""Keys and values of the tokens that beams have generated.

A prompt's own are in the KV cache, once for all of its beams. A step writes the beams'
newest positions side by side into the next W columns; nothing is copied or reordered.
Each beam knows which columns its continuation descends from:

    column        0 1 | 2 3 | 4 5 |        W = 2
    beam 0 sees   1 0   1 0   0 1
    beam 1 sees   1 0   0 1   1 0
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from isara_jax.engine.kv_cache import DenseKVCache, LayerBlocks, block_sizes, round_up
from isara_jax.models import Attend
from isara_jax.models.attention import KVSegment, attention_with_lse, merge_segments
from isara_jax.runtime import Mesh, constrain

# Columns that a query reads at once; those beyond the newest are not read.
COLUMN_BLOCK = 128

KEY_AXES = ("layers", "batch", "kv_heads", "head_dim", "time")
VALUE_AXES = ("layers", "batch", "kv_heads", "time", "head_dim")

# What was attended, and the log-sum-exps of the scores.
Attended = tuple[Float[Array, "B W N H"], Float[Array, "B W N"]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Branches:
    """A column a beam and step; C of them are room for the longest continuations.

    Attributes:
      keys: of each block of l layers.
      ancestors: the columns of each beam's continuation.
    """

    keys: tuple[Float[Array, "l B K H C"], ...]
    values: tuple[Float[Array, "l B K C H"], ...]
    ancestors: Bool[Array, "B W C"]

    @property
    def beams(self) -> int:
        """The beams W of a prompt."""
        return self.ancestors.shape[1]

    @property
    def blocks(self) -> tuple[tuple[Array, Array], ...]:
        """The keys and values of every block of layers."""
        return tuple(zip(self.keys, self.values, strict=True))

    def holding(self, blocks: tuple[tuple[Array, Array], ...]) -> "Branches":
        """Returns the branches with what was written in the blocks."""
        keys, values = zip(*blocks, strict=True)
        return replace(self, keys=keys, values=values)

    def columns(self, generated: Int[Array, " B"]) -> Int[Array, "B W"]:
        """Returns the columns of the tokens that follow so many others."""
        return generated[:, None] * self.beams + jnp.arange(self.beams)

    def extended(
        self, parents: Int[Array, "B W"], generated: Int[Array, " B"]
    ) -> "Branches":
        """Returns the branches of which each beam goes on from its parent's."""
        rows = jnp.arange(parents.shape[0])[:, None]
        ancestors = self.ancestors[rows, parents]
        columns, beam = self.columns(generated), jnp.arange(self.beams)
        return replace(self, ancestors=ancestors.at[rows, beam, columns].set(True))

    def cleared(self, slot: Int[Array, ""]) -> "Branches":
        """Returns the branches with none of the slot's."""
        return replace(self, ancestors=self.ancestors.at[slot].set(False))

    def take(self, slots: Int[Array, " b"]) -> "Branches":
        """Returns the branches of these slots only."""
        return Branches(
            keys=tuple(jnp.take(array, slots, axis=1) for array in self.keys),
            values=tuple(jnp.take(array, slots, axis=1) for array in self.values),
            ancestors=self.ancestors[slots],
        )

    def constrain(self, mesh: Mesh) -> "Branches":
        """Gives the branches the sharding that every program keeps."""
        return Branches(
            keys=tuple(constrain(array, KEY_AXES, mesh) for array in self.keys),
            values=tuple(constrain(array, VALUE_AXES, mesh) for array in self.values),
            ancestors=constrain(self.ancestors, ("batch", "time", "time"), mesh),
        )


def empty_branches(
    layer_blocks: LayerBlocks, *, rows: int, beams: int, new_tokens: int
) -> Branches:
    """Returns branches without a token, with room for so many a beam."""
    config = layer_blocks.model.config
    dtype = jax.tree.leaves(layer_blocks.blocks[0])[0].dtype
    columns = round_up(beams * new_tokens, COLUMN_BLOCK)
    heads, size = config.kv_heads, config.head_size
    layers = block_sizes(layer_blocks)
    return Branches(
        keys=tuple(
            jnp.zeros((count, rows, heads, size, columns), dtype) for count in layers
        ),
        values=tuple(
            jnp.zeros((count, rows, heads, columns, size), dtype) for count in layers
        ),
        ancestors=jnp.zeros((rows, beams, columns), bool),
    )


def beam_attention(
    cache: DenseKVCache,
    branches: Branches,
    *,
    generated: Int[Array, " B"],
    newest: Int[Array, ""],
    window: int | None,
) -> Callable[[tuple, Array], Attend]:
    """Writes the beams' newest tokens, and attends from each to its prompt and itself.

    `generated` tokens of a slot are before them, in no slot that counts more than
    `newest`. The function takes a block of the cache, and one of the branches.
    """
    rows = jnp.arange(generated.shape[0])[:, None]
    columns = branches.columns(generated)
    positions = (cache.shared_len + cache.lengths + generated)[:, None]
    prompt_segments = cache.kv_segments(positions, window=window)
    visible = branches.ancestors
    if window:
        depths = jnp.arange(visible.shape[2]) // branches.beams
        visible &= (depths > generated[:, None] - window)[:, None]
    count = (newest + 1) * branches.beams
    blocks_read = (count + COLUMN_BLOCK - 1) // COLUMN_BLOCK

    def attend(block: tuple, number: Array) -> Attend:
        prompts, (keys, values) = block

        def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
            longer_keys = keys.at[number, rows, :, :, columns].set(k)
            longer_values = values.at[number, rows, :, columns].set(v)

            def read(index: Array, so_far: Attended) -> Attended:
                start = index * COLUMN_BLOCK
                near_keys, near_values, near = (
                    jax.lax.dynamic_slice_in_dim(array, start, COLUMN_BLOCK, axis)
                    for array, axis in (
                        (longer_keys[number], 3),
                        (longer_values[number], 2),
                        (visible, 2),
                    )
                )
                segment = KVSegment(near_keys.swapaxes(2, 3), near_values, near)
                return _merged(so_far, _attended(q, segment))

            parts = [_attended(q, part) for part in prompt_segments(prompts, number)]
            mixed, _ = jax.lax.fori_loop(0, blocks_read, read, reduce(_merged, parts))
            return mixed.astype(q.dtype), (prompts, (longer_keys, longer_values))

        return attended

    return attend


def _attended(q: Float[Array, "B W N H"], segment: KVSegment) -> Attended:
    mixed, sums = attention_with_lse(q, segment)
    return mixed.astype(jnp.float32), sums


def _merged(one: Attended, other: Attended) -> Attended:
    """Merges two parts; one that sees nothing changes no bit of the other."""
    return merge_segments([one, other]), jnp.logaddexp(one[1], other[1])
