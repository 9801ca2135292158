"""Slots as XLA attends to them: keys with their positions last.

On CPU their product with a query then reads them in order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models.decoder import Attend
from isara_jax.models.plain_attention import Piece, attention_from, attention_over
from isara_jax.runtime.mesh import Mesh, sharding_for

KEY_WORDS = ("layers", "batch", "kv_heads", "head_dim", "time")
VALUE_WORDS = ("layers", "batch", "kv_heads", "time", "head_dim")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PlainSlots:
    """Keys and values a block of layers: keys [l, B, K, H, S], values [l, B, K, S, H].

    `shared_keys` and `shared_values` are those of the first `shared` positions of every
    row, with B = 1 and room for P. `lengths` counts a row's own positions after these.
    """

    keys: tuple[Float[Array, "_ B K H S"], ...]
    values: tuple[Float[Array, "_ B K S H"], ...]
    shared_keys: tuple[Float[Array, "_ 1 K H P"], ...]
    shared_values: tuple[Float[Array, "_ 1 K P H"], ...]
    shared: Int[Array, ""]
    lengths: Int[Array, " B"]

    @classmethod
    def empty(
        cls,
        config: Any,
        *,
        layers: tuple[int, ...],
        rows: int,
        capacity: int,
        shared: int,
        dtype: jnp.dtype,
    ) -> "PlainSlots":
        """Returns slots with nothing written, for blocks of so many layers."""

        def keys(rows: int, room: int) -> tuple[Array, ...]:
            shape = (rows, config.kv_heads, config.head_size, room)
            return tuple(jnp.zeros((count, *shape), dtype) for count in layers)

        def values(rows: int, room: int) -> tuple[Array, ...]:
            shape = (rows, config.kv_heads, room, config.head_size)
            return tuple(jnp.zeros((count, *shape), dtype) for count in layers)

        return cls(
            keys=keys(rows, capacity),
            values=values(rows, capacity),
            shared_keys=keys(1, shared),
            shared_values=values(1, shared),
            shared=jnp.zeros((), jnp.int32),
            lengths=jnp.zeros(rows, jnp.int32),
        )

    @property
    def blocks(self) -> tuple[tuple[Array, ...], ...]:
        """The arrays of every block of layers."""
        return tuple(
            zip(
                self.keys,
                self.values,
                self.shared_keys,
                self.shared_values,
                strict=True,
            )
        )

    def holding(self, blocks: tuple[tuple[Array, ...], ...]) -> "PlainSlots":
        """Returns the slots with what was written in the blocks."""
        keys, values, _, _ = zip(*blocks, strict=True)
        return replace(self, keys=keys, values=values)

    def attend_next(
        self, *, window: int | None
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to there."""
        rows = jnp.arange(self.lengths.shape[0])
        positions = (self.shared + self.lengths)[:, None]
        own = jnp.arange(self.values[0].shape[3])
        own_visible = own <= self.lengths[:, None]
        early = jnp.arange(self.shared_values[0].shape[3])
        early_visible = jnp.broadcast_to(early < self.shared, (len(rows), early.size))
        if window:
            own_visible &= own > self.lengths[:, None] - window
            early_visible &= early > positions - window

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, shared_keys, shared_values = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                at = self.lengths
                longer_keys = keys.at[number, rows, :, :, at].set(k[:, 0])
                longer_values = values.at[number, rows, :, at].set(v[:, 0])
                pieces = [
                    Piece(
                        longer_keys[number].swapaxes(2, 3),
                        longer_values[number],
                        own_visible[:, None],
                    )
                ]
                if early.size:
                    pieces.append(
                        Piece(
                            shared_keys[number].swapaxes(2, 3),
                            shared_values[number],
                            early_visible[:, None],
                        )
                    )
                mixed = attention_over(q, pieces)
                return mixed, (longer_keys, longer_values, shared_keys, shared_values)

            return attended

        return attend

    def reach(self, end: int) -> int:
        """Returns up to where a chunk that ends there reads; each is compiled for."""
        del end
        return self.values[0].shape[3]

    def attend_chunk(
        self,
        positions: Int[Array, "B T"],
        *,
        start: Int[Array, ""],
        reach: int,
        window: int | None,
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes T tokens from `start` on, and attends to what is before them."""
        del positions, reach

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, *shared = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                longer_keys = jax.lax.dynamic_update_slice(
                    keys, k.transpose(0, 2, 3, 1)[None], (number, 0, 0, 0, start)
                )
                longer_values = jax.lax.dynamic_update_slice(
                    values, v.swapaxes(1, 2)[None], (number, 0, 0, start, 0)
                )
                mixed = attention_from(
                    q,
                    longer_keys[number],
                    longer_values[number],
                    start=start,
                    window=window,
                )
                return mixed, (longer_keys, longer_values, *shared)

            return attended

        return attend

    def sharing(self, path: Any, count: Int[Array, ""]) -> "PlainSlots":
        """Takes the first `count` positions of a path of this kind for all rows."""
        room = self.shared_values[0].shape[3]
        return replace(
            self,
            shared_keys=tuple(keys[..., :room] for keys in path.keys),
            shared_values=tuple(values[..., :room, :] for values in path.values),
            shared=count,
        )

    def with_row(
        self, path: Any, *, row: Int[Array, ""], length: Int[Array, ""]
    ) -> "PlainSlots":
        """Puts `length` positions of a path, less the shared ones, into a row."""
        room = self.values[0].shape[3]
        first = self.shared

        def taken(slots: Array, of_path: Array, axis: int) -> Array:
            own = jax.lax.dynamic_slice_in_dim(of_path, first, room, axis)
            return jax.lax.dynamic_update_slice_in_dim(slots, own, row, 1)

        return replace(
            self,
            keys=tuple(
                taken(*pair, 4) for pair in zip(self.keys, path.keys, strict=True)
            ),
            values=tuple(
                taken(*pair, 3) for pair in zip(self.values, path.values, strict=True)
            ),
            lengths=self.lengths.at[row].set(length - first),
        )

    def laid_out(self, mesh: Mesh) -> "PlainSlots":
        """Gives the slots the layout on the mesh that every program keeps."""

        def split(array: Array, *words: str) -> Array:
            return jax.lax.with_sharding_constraint(
                array, sharding_for(words, array.shape, mesh)
            )

        def split_all(arrays: tuple[Array, ...], *words: str) -> tuple[Array, ...]:
            return tuple(split(array, *words) for array in arrays)

        return PlainSlots(
            keys=split_all(self.keys, *KEY_WORDS),
            values=split_all(self.values, *VALUE_WORDS),
            shared_keys=split_all(self.shared_keys, *KEY_WORDS),
            shared_values=split_all(self.shared_values, *VALUE_WORDS),
            shared=split(self.shared),
            lengths=split(self.lengths, "batch"),
        )
