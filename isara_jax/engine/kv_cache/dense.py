"""What the KV caches have in common whose rows are axes of dense arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models import DecoderConfig
from isara_jax.models.attention import AttentionBackend, KVSegment
from isara_jax.runtime import Mesh, constrain

ROW = 1


@dataclass(frozen=True, kw_only=True)
class DenseKVCache:
    """Keys and values of each block of layers, and of the shared prefix.

    Attributes:
      KEY_AXES, VALUE_AXES: the logical axes of keys and of values, in their order.
      keys, values: a row's own positions, behind those of the shared prefix.
      shared_keys, shared_values: the prefix that all rows share, held once.
      shared_len: the positions of the prefix.
      lengths: each row's own positions.
    """

    KEY_AXES: ClassVar[tuple[str, ...]]
    VALUE_AXES: ClassVar[tuple[str, ...]]

    keys: tuple[Float[Array, "_ B K ..."], ...]
    values: tuple[Float[Array, "_ B K ..."], ...]
    shared_keys: tuple[Float[Array, "_ 1 K ..."], ...]
    shared_values: tuple[Float[Array, "_ 1 K ..."], ...]
    shared_len: Int[Array, ""]
    lengths: Int[Array, " B"]
    backend: AttentionBackend = field(metadata={"static": True})

    @classmethod
    def empty(
        cls,
        config: DecoderConfig,
        *,
        layers: tuple[int, ...],
        rows: int,
        max_len: int,
        max_shared_len: int,
        dtype: jnp.dtype,
        backend: AttentionBackend,
    ) -> Self:
        """Returns a cache with nothing written, for blocks of so many layers."""

        def zeros(axes: Sequence[str], rows: int, length: int) -> tuple[Array, ...]:
            sizes = {
                "batch": rows,
                "kv_heads": config.kv_heads,
                "time": length,
                "head_dim": config.head_size,
            }
            shape = tuple(sizes[axis] for axis in axes[ROW:])
            return tuple(jnp.zeros((count, *shape), dtype) for count in layers)

        padded = cls.padded_len(max_len)
        return cls(
            keys=zeros(cls.KEY_AXES, rows, padded),
            values=zeros(cls.VALUE_AXES, rows, padded),
            shared_keys=zeros(cls.KEY_AXES, 1, max_shared_len),
            shared_values=zeros(cls.VALUE_AXES, 1, max_shared_len),
            shared_len=jnp.zeros((), jnp.int32),
            lengths=jnp.zeros(rows, jnp.int32),
            backend=backend,
        )

    @staticmethod
    def padded_len(max_len: int) -> int:
        """Returns the positions that a row is given where it needs so many."""
        return max_len

    @property
    def max_len(self) -> int:
        """The own positions that a row can hold."""
        return self.values[0].shape[self.VALUE_AXES.index("time")]

    @property
    def max_shared_len(self) -> int:
        """The positions that the shared prefix can have."""
        return self.shared_values[0].shape[self.VALUE_AXES.index("time")]

    @property
    def blocks(self) -> tuple[tuple[Array, ...], ...]:
        """The arrays of every block of layers: keys, values, and the shared ones."""
        shared = (self.shared_keys, self.shared_values)
        return tuple(zip(self.keys, self.values, *shared, strict=True))

    def with_blocks(self, blocks: tuple[tuple[Array, ...], ...]) -> Self:
        """Returns the cache with the keys and values of the given blocks."""
        keys, values, _, _ = zip(*blocks, strict=True)
        return replace(self, keys=keys, values=values)

    def share_prefix(self, kv_row: Any, shared_len: Int[Array, ""]) -> Self:
        """Copies the first positions of a one-row cache of this kind for all rows."""

        def prefix(array: Array, time: int) -> Array:
            return jax.lax.slice_in_dim(array, 0, self.max_shared_len, axis=time)

        keys, values = self._map(prefix, kv_row.keys, kv_row.values)
        return replace(
            self, shared_keys=keys, shared_values=values, shared_len=shared_len
        )

    def insert(
        self, kv_row: Any, *, row: Int[Array, ""], length: Int[Array, ""]
    ) -> Self:
        """Copies `length` positions of a one-row cache, less the shared, into a row.

        The one-row cache must hold `max_len` positions behind the shared ones.
        """

        def own(array: Array, time: int) -> Array:
            start, size = self.shared_len, self.max_len
            return jax.lax.dynamic_slice_in_dim(array, start, size, time)

        def put(rows: Array, own: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(rows, own, row, ROW)

        keys, values = self._map(own, kv_row.keys, kv_row.values)
        return replace(
            self,
            keys=tuple(map(put, self.keys, keys)),
            values=tuple(map(put, self.values, values)),
            lengths=self.lengths.at[row].set(length - self.shared_len),
        )

    def kv_segments(
        self, positions: Int[Array, "B T"], *, window: int | None
    ) -> Callable[[tuple[Array, ...], Array], list[KVSegment]]:
        """Returns what queries at these positions see of the written ones.

        The function takes a block and the number of a layer in it.
        """
        own, early = jnp.arange(self.max_len), jnp.arange(self.max_shared_len)
        own_visible = jnp.broadcast_to(
            (own < self.lengths[:, None])[:, None],
            (*positions.shape, own.size),
        )
        early_visible = jnp.broadcast_to(
            early < self.shared_len, (*positions.shape, early.size)
        )
        if window:
            oldest = positions[..., None] - window
            own_visible &= self.shared_len + own > oldest
            early_visible &= early > oldest

        def segments(block: tuple[Array, ...], number: Array) -> list[KVSegment]:
            keys, values, shared_keys, shared_values = (
                array[number] for array in block
            )
            found = [KVSegment(self._by_position(keys), values, own_visible)]
            if early.size:
                found.append(
                    KVSegment(
                        self._by_position(shared_keys), shared_values, early_visible
                    )
                )
            return found

        return segments

    def _by_position(self, keys: Float[Array, "B K ..."]) -> Float[Array, "B K S H"]:
        """Returns a layer's keys with their axes in the order of the values'."""
        return keys if self.KEY_AXES == self.VALUE_AXES else keys.swapaxes(2, 3)

    def take_rows(self, rows: Int[Array, " b"]) -> Self:
        """Returns a cache that holds these rows only."""

        def take(array: Array, _: int) -> Array:
            return jnp.take(array, rows, axis=ROW)

        keys, values = self._map(take, self.keys, self.values)
        return replace(self, keys=keys, values=values, lengths=self.lengths[rows])

    def constrain(self, mesh: Mesh) -> Self:
        """Constrains the cache to the sharding that all programs keep."""

        def constrain_all(arrays: Sequence[Array], axes: Sequence[str]) -> tuple:
            return tuple(constrain(array, axes, mesh) for array in arrays)

        return replace(
            self,
            keys=constrain_all(self.keys, self.KEY_AXES),
            values=constrain_all(self.values, self.VALUE_AXES),
            shared_keys=constrain_all(self.shared_keys, self.KEY_AXES),
            shared_values=constrain_all(self.shared_values, self.VALUE_AXES),
            shared_len=constrain(self.shared_len, (), mesh),
            lengths=constrain(self.lengths, ("batch",), mesh),
        )

    def _map(
        self,
        function: Callable[[Array, int], Array],
        keys: Sequence[Array],
        values: Sequence[Array],
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Applies a function of an array and its time axis to keys and values."""
        in_keys, in_values = (
            axes.index("time") for axes in (self.KEY_AXES, self.VALUE_AXES)
        )
        return (
            tuple(function(array, in_keys) for array in keys),
            tuple(function(array, in_values) for array in values),
        )
