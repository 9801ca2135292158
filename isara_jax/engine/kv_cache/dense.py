"""What slots are whose rows lie one beside the other, whatever attends to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models.attention import AttentionBackend
from isara_jax.runtime import Mesh, constrain

ROW = 1


@dataclass(frozen=True, kw_only=True)
class DenseKVCache:
    """Keys and values a block of layers, their axes in the order of the words.

    `shared_keys` and `shared_values` are those of the first `shared` positions of every
    row, of which they hold one. `lengths` counts a row's own positions after these.
    """

    KEY_WORDS: ClassVar[tuple[str, ...]]
    VALUE_WORDS: ClassVar[tuple[str, ...]]

    keys: tuple[Float[Array, "_ B K ..."], ...]
    values: tuple[Float[Array, "_ B K ..."], ...]
    shared_keys: tuple[Float[Array, "_ 1 K ..."], ...]
    shared_values: tuple[Float[Array, "_ 1 K ..."], ...]
    shared: Int[Array, ""]
    lengths: Int[Array, " B"]
    backend: AttentionBackend = field(metadata={"static": True})

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
        backend: AttentionBackend,
    ) -> Self:
        """Returns slots with nothing written, for blocks of so many layers."""

        def zeros(words: Sequence[str], rows: int, room: int) -> tuple[Array, ...]:
            sizes = {
                "batch": rows,
                "kv_heads": config.kv_heads,
                "time": room,
                "head_dim": config.head_size,
            }
            shape = tuple(sizes[word] for word in words[ROW:])
            return tuple(jnp.zeros((count, *shape), dtype) for count in layers)

        return cls(
            keys=zeros(cls.KEY_WORDS, rows, cls.room_for(capacity)),
            values=zeros(cls.VALUE_WORDS, rows, cls.room_for(capacity)),
            shared_keys=zeros(cls.KEY_WORDS, 1, shared),
            shared_values=zeros(cls.VALUE_WORDS, 1, shared),
            shared=jnp.zeros((), jnp.int32),
            lengths=jnp.zeros(rows, jnp.int32),
            backend=backend,
        )

    @staticmethod
    def room_for(capacity: int) -> int:
        """Returns the positions that a row is given where it needs so many."""
        return capacity

    @property
    def room(self) -> int:
        """The positions that a row has room for, beyond the shared ones."""
        return self.values[0].shape[self.VALUE_WORDS.index("time")]

    @property
    def shared_room(self) -> int:
        """The positions that there is room for in the shared beginning."""
        return self.shared_values[0].shape[self.VALUE_WORDS.index("time")]

    @property
    def blocks(self) -> tuple[tuple[Array, ...], ...]:
        """The arrays of every block of layers: keys, values, and the shared ones."""
        shared = (self.shared_keys, self.shared_values)
        return tuple(zip(self.keys, self.values, *shared, strict=True))

    def holding(self, blocks: tuple[tuple[Array, ...], ...]) -> Self:
        """Returns the slots with what was written in the blocks."""
        keys, values, _, _ = zip(*blocks, strict=True)
        return replace(self, keys=keys, values=values)

    def sharing(self, path: Any, count: Int[Array, ""]) -> Self:
        """Takes the first `count` positions of a path of this kind for all rows."""

        def first(array: Array, time: int) -> Array:
            return jax.lax.slice_in_dim(array, 0, self.shared_room, axis=time)

        keys, values = self._mapped(first, path.keys, path.values)
        return replace(self, shared_keys=keys, shared_values=values, shared=count)

    def with_row(
        self, path: Any, *, row: Int[Array, ""], length: Int[Array, ""]
    ) -> Self:
        """Puts `length` positions of a path, less the shared ones, into a row.

        The path has room for a row's positions behind the shared ones.
        """

        def own(array: Array, time: int) -> Array:
            return jax.lax.dynamic_slice_in_dim(array, self.shared, self.room, time)

        def put(slots: Array, own: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(slots, own, row, ROW)

        keys, values = self._mapped(own, path.keys, path.values)
        return replace(
            self,
            keys=tuple(map(put, self.keys, keys)),
            values=tuple(map(put, self.values, values)),
            lengths=self.lengths.at[row].set(length - self.shared),
        )

    def picked(self, rows: Int[Array, " b"]) -> Self:
        """Returns slots that hold these rows only."""

        def pick(array: Array, _: int) -> Array:
            return jnp.take(array, rows, axis=ROW)

        keys, values = self._mapped(pick, self.keys, self.values)
        return replace(self, keys=keys, values=values, lengths=self.lengths[rows])

    def constrain(self, mesh: Mesh) -> Self:
        """Gives the slots the layout on the mesh that every program keeps."""

        def constrain_all(arrays: Sequence[Array], words: Sequence[str]) -> tuple:
            return tuple(constrain(array, words, mesh) for array in arrays)

        return replace(
            self,
            keys=constrain_all(self.keys, self.KEY_WORDS),
            values=constrain_all(self.values, self.VALUE_WORDS),
            shared_keys=constrain_all(self.shared_keys, self.KEY_WORDS),
            shared_values=constrain_all(self.shared_values, self.VALUE_WORDS),
            shared=constrain(self.shared, (), mesh),
            lengths=constrain(self.lengths, ("batch",), mesh),
        )

    def _mapped(
        self,
        change: Callable[[Array, int], Array],
        keys: Sequence[Array],
        values: Sequence[Array],
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Changes keys and values, each told which of its axes is time."""
        in_keys, in_values = (
            words.index("time") for words in (self.KEY_WORDS, self.VALUE_WORDS)
        )
        return (
            tuple(change(array, in_keys) for array in keys),
            tuple(change(array, in_values) for array in values),
        )
