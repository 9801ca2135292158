"""Slots for the kernels of NVIDIA: keys lie as values do, position by position."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models import nvidia_attention
from isara_jax.models.attention import Kernels
from isara_jax.models.decoder import Attend
from isara_jax.models.plain_attention import Piece, attention_part, joined
from isara_jax.runtime.mesh import Mesh, sharding_for

# The fewest positions that a chunk of a prompt attends to, masked or not.
LEAST_REACH = 1024
WORDS = ("layers", "batch", "kv_heads", "time", "head_dim")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FlashSlots:
    """Keys and values a block of layers, [l, B, K, S, H].

    `shared_keys` and `shared_values` are those of the first `shared` positions of every
    row, with B = 1 and room for P. `lengths` counts a row's own positions after these.
    """

    keys: tuple[Float[Array, "_ B K S H"], ...]
    values: tuple[Float[Array, "_ B K S H"], ...]
    shared_keys: tuple[Float[Array, "_ 1 K P H"], ...]
    shared_values: tuple[Float[Array, "_ 1 K P H"], ...]
    shared: Int[Array, ""]
    lengths: Int[Array, " B"]
    kernels: Kernels = field(metadata={"static": True})

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
        kernels: Kernels,
    ) -> "FlashSlots":
        """Returns slots with nothing written, for blocks of so many layers."""

        def zeros(rows: int, room: int) -> tuple[Array, ...]:
            shape = (rows, config.kv_heads, room, config.head_size)
            return tuple(jnp.zeros((count, *shape), dtype) for count in layers)

        room = capacity + -capacity % nvidia_attention.ROOM_STEP
        return cls(
            keys=zeros(rows, room),
            values=zeros(rows, room),
            shared_keys=zeros(1, shared),
            shared_values=zeros(1, shared),
            shared=jnp.zeros((), jnp.int32),
            lengths=jnp.zeros(rows, jnp.int32),
            kernels=kernels,
        )

    @property
    def blocks(self) -> tuple[tuple[Array, ...], ...]:
        """The arrays of every block of layers."""
        shared = (self.shared_keys, self.shared_values)
        return tuple(zip(self.keys, self.values, *shared, strict=True))

    def holding(self, blocks: tuple[tuple[Array, ...], ...]) -> "FlashSlots":
        """Returns the slots with what was written in the blocks."""
        keys, values, _, _ = zip(*blocks, strict=True)
        return replace(self, keys=keys, values=values)

    def attend_next(
        self, *, window: int | None
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to there."""
        rows = jnp.arange(self.lengths.shape[0])
        end = jnp.minimum(self.lengths + 1, self.keys[0].shape[3])
        first = jnp.zeros_like(end)
        early = jnp.arange(self.shared_keys[0].shape[3])
        early_visible = jnp.broadcast_to(early < self.shared, (len(rows), early.size))
        if window:
            first = jnp.maximum(self.lengths + 1 - window, 0)
            oldest = self.shared + self.lengths + 1 - window
            early_visible &= early >= oldest[:, None]

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, shared_keys, shared_values = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                longer_keys = keys.at[number, rows, :, self.lengths].set(k[:, 0])
                longer_values = values.at[number, rows, :, self.lengths].set(v[:, 0])
                parts = [
                    self._own_attention(
                        q, longer_keys[number], longer_values[number], first, end
                    )
                ]
                if early.size:
                    piece = Piece(
                        shared_keys[number],
                        shared_values[number],
                        early_visible[:, None],
                    )
                    parts.append(attention_part(q, piece))
                carried = (longer_keys, longer_values, shared_keys, shared_values)
                return joined(parts).astype(q.dtype), carried

            return attended

        return attend

    def _own_attention(
        self,
        q: Float[Array, "B 1 N H"],
        k: Float[Array, "B K S H"],
        v: Float[Array, "B K S H"],
        first: Int[Array, " B"],
        end: Int[Array, " B"],
    ) -> tuple[Float[Array, "B 1 N H"], Float[Array, "B 1 N"]]:
        def attended(*arrays: Array) -> tuple[Array, Array]:
            q, k, v, first, end = arrays
            return nvidia_attention.own_attention(q, k, v, first=first, end=end)

        heads = self.kernels.heads_word(k.shape[1])
        query, row = ("batch", heads, "head_dim"), ("batch",)
        keys = ("batch", heads, "time", "head_dim")
        shape = (q.shape[0], *q.shape[2:])
        mixed, sums = self.kernels.run(
            attended,
            *(q[:, 0], k, v, first, end),
            words=(query, keys, keys, row, row),
            outputs=((query, shape), (query[:2], shape[:2])),
        )
        return mixed[:, None], sums[:, None]

    def reach(self, end: int) -> int:
        """Returns up to where a chunk that ends there reads; each is compiled for."""
        reach = LEAST_REACH
        while reach < end:
            reach *= 2
        return min(reach, self.keys[0].shape[3])

    def attend_chunk(
        self,
        positions: Int[Array, "B T"],
        *,
        start: Int[Array, ""],
        reach: int,
        window: int | None,
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes T tokens from `start` on, and attends to what is before `reach`."""
        columns = jnp.arange(reach)
        visible = columns <= positions[..., None]
        if window:
            visible &= columns > positions[..., None] - window

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, *shared = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                at = (number, 0, 0, start, 0)
                longer = [
                    jax.lax.dynamic_update_slice(array, new.swapaxes(1, 2)[None], at)
                    for array, new in ((keys, k), (values, v))
                ]
                near_keys, near_values = (
                    array[number][:, :, :reach] for array in longer
                )
                mixed = self._chunk_attention(q, near_keys, near_values, visible)
                return mixed, (*longer, *shared)

            return attended

        return attend

    def _chunk_attention(
        self,
        q: Float[Array, "B T N H"],
        k: Float[Array, "B K S H"],
        v: Float[Array, "B K S H"],
        visible: Array,
    ) -> Float[Array, "B T N H"]:
        def attended(q: Array, k: Array, v: Array, visible: Array) -> tuple[Array]:
            return (nvidia_attention.chunk_attention(q, k, v, visible=visible),)

        heads = self.kernels.heads_word(k.shape[1])
        query = ("batch", "time", heads, "head_dim")
        keys = ("batch", heads, "time", "head_dim")
        (mixed,) = self.kernels.run(
            attended,
            *(q, k, v, visible),
            words=(query, keys, keys, ("batch", "time", "time")),
            outputs=((query, q.shape),),
        )
        return mixed

    def sharing(self, path: Any, count: Int[Array, ""]) -> "FlashSlots":
        """Takes the first `count` positions of a path of this kind for all rows."""
        room = self.shared_keys[0].shape[3]
        return replace(
            self,
            shared_keys=tuple(keys[..., :room, :] for keys in path.keys),
            shared_values=tuple(values[..., :room, :] for values in path.values),
            shared=count,
        )

    def with_row(
        self, path: Any, *, row: Int[Array, ""], length: Int[Array, ""]
    ) -> "FlashSlots":
        """Puts `length` positions of a path, less the shared ones, into a row."""
        room = self.keys[0].shape[3]
        # A row's room is rounded up, and may reach beyond the path's.
        tail = (*((0, 0),) * 3, (0, nvidia_attention.ROOM_STEP), (0, 0))

        def taken(slots: Array, of_path: Array) -> Array:
            longer = jnp.pad(of_path, tail)
            own = jax.lax.dynamic_slice_in_dim(longer, self.shared, room, 3)
            return jax.lax.dynamic_update_slice_in_dim(slots, own, row, 1)

        return replace(
            self,
            keys=tuple(map(taken, self.keys, path.keys)),
            values=tuple(map(taken, self.values, path.values)),
            lengths=self.lengths.at[row].set(length - self.shared),
        )

    def laid_out(self, mesh: Mesh) -> "FlashSlots":
        """Gives the slots the layout on the mesh that every program keeps."""

        def split(array: Array, *words: str) -> Array:
            return jax.lax.with_sharding_constraint(
                array, sharding_for(words, array.shape, mesh)
            )

        def split_all(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(split(array, *WORDS) for array in arrays)

        return replace(
            self,
            keys=split_all(self.keys),
            values=split_all(self.values),
            shared_keys=split_all(self.shared_keys),
            shared_values=split_all(self.shared_values),
            shared=split(self.shared),
            lengths=split(self.lengths, "batch"),
        )
