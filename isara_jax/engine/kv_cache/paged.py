"""Slots for the paged kernel of TPU: keys and values side by side in pages.

    pages of a shard   | shared: P | row 0 | row 1 | ...
    table of row 1     the shared pages that are full, then the row's own

A row's own pages begin with the shared positions that fill no page. The pages of all
layers of a block are one pool for the kernel, so no layer is ever sliced out of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models import Attend
from isara_jax.models.attention import (
    PAGE,
    AttentionBackend,
    combined,
    padded_head_size,
    padded_kv_heads,
    paged_attention,
)
from isara_jax.runtime import Mesh, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PagedKVCache:
    """The pages a block of layers, [l, G, S, C, W]: each of G shards has its own rows.

    C counts keys and values of the KV heads, W is a head's padded size. `room` are the
    positions of the shared pages; each shard holds a copy of these. `shared` and
    `lengths` count the positions that all rows share, and each row's own after them.
    """

    pages: tuple[Float[Array, "_ G S C W"], ...]
    shared: Int[Array, ""]
    lengths: Int[Array, " B"]
    room: int = field(metadata={"static": True})
    kv_heads: int = field(metadata={"static": True})
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
    ) -> "PagedKVCache":
        """Returns slots with nothing written, for blocks of so many layers."""
        data, model = 1, 1
        if backend.mesh is not None:
            data, model = backend.mesh.shape["data"], backend.mesh.shape["model"]
        shards = data if rows % data == 0 else 1
        parts = model if config.kv_heads % model == 0 else 1
        heads = parts * padded_kv_heads(config.kv_heads // parts, dtype)
        room = _whole_pages(shared)
        # One page more, for what the row has of the last shared one.
        own = _whole_pages(capacity) + PAGE
        shape = (
            *(shards, room + rows // shards * own),
            *(2 * heads, padded_head_size(config.head_size)),
        )
        return cls(
            pages=tuple(jnp.zeros((count, *shape), dtype) for count in layers),
            shared=jnp.zeros((), jnp.int32),
            lengths=jnp.zeros(rows, jnp.int32),
            room=room,
            kv_heads=config.kv_heads,
            backend=backend,
        )

    @property
    def blocks(self) -> tuple[Array, ...]:
        """The pages of every block of layers."""
        return self.pages

    def holding(self, blocks: tuple[Array, ...]) -> "PagedKVCache":
        """Returns the slots with what was written in the blocks."""
        return replace(self, pages=blocks)

    @property
    def _first(self) -> Int[Array, ""]:
        """The position with which every row's own pages begin."""
        return self.shared - self.shared % PAGE

    @property
    def _own(self) -> int:
        """The positions of a row's own pages."""
        shards, positions = self.pages[0].shape[1:3]
        return (positions - self.room) * shards // self.lengths.shape[0]

    def decode_attention(
        self, *, window: int | None
    ) -> Callable[[Array, Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to there."""
        return self._attend(self.shared - self._first + self.lengths, window=window)

    def kv_len(self, end: int) -> int:
        """Returns up to where a chunk that ends there reads; each is compiled for."""
        del end
        return self._own

    def prefill_attention(
        self,
        *,
        start: Int[Array, ""],
        kv_len: int,
        window: int | None,
    ) -> Callable[[Array, Array], Attend]:
        """Writes T tokens from `start` on, and attends to what is before them."""
        del kv_len
        return self._attend(start[None], window=window)

    def _attend(
        self, start: Int[Array, " B"], *, window: int | None
    ) -> Callable[[Array, Array], Attend]:
        """Writes tokens from `start` of every row's own pages on, and attends."""

        def run(*arrays: Array) -> tuple[Array, Array]:
            q, k, v, pages, start, first, number = arrays
            longer = self._written(k, v, pages, start, number)
            pool = longer.reshape(-1, PAGE, *longer.shape[3:])
            mixed = paged_attention(
                q,
                pool,
                kv_heads=k.shape[2],
                lengths=first + jnp.minimum(start + q.shape[1], self._own),
                table=self._table(q.shape[0], first, number, pages.shape[2]),
                window=window,
            )
            return mixed, longer

        def attend(pages: Array, number: Array) -> Attend:
            def attended(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
                heads = self.backend.heads_word(self.kv_heads)
                tokens = ("batch", "time", heads, "head_dim")
                words = ("layers", "batch", "time", heads, "head_dim")
                mixed, longer = self.backend.run(
                    run,
                    *(q, k, v, pages, start, self._first, number),
                    words=(tokens, tokens, tokens, words, ("batch",), (), ()),
                    outputs=((tokens, q.shape), (words, pages.shape)),
                )
                return mixed, longer

            return attended

        return attend

    def _written(
        self,
        k: Float[Array, "B T K H"],
        v: Float[Array, "B T K H"],
        pages: Float[Array, "l 1 S C W"],
        start: Int[Array, " B"],
        number: Int[Array, ""],
    ) -> Float[Array, "l 1 S C W"]:
        rows, count = k.shape[:2]
        positions, heads, size = pages.shape[2], pages.shape[3] // 2, pages.shape[4]
        own = start[:, None] + jnp.arange(count)
        at = self.room + self._own * jnp.arange(rows)[:, None] + own
        # Behind the last page nothing is written.
        at = jnp.where(own < self._own, at, positions)
        return pages.at[number, 0, at].set(combined(k, v, heads=heads, size=size))

    def _table(
        self, rows: int, first: Array, number: Array, positions: int
    ) -> Int[Array, "rows a_row"]:
        """Says in which of the pool's pages the positions of each row lie."""
        full, own = first // PAGE, self._own // PAGE
        place = jnp.arange(self.room // PAGE + own)
        begins = self.room // PAGE + own * jnp.arange(rows)
        # Nothing is read of the places that are clipped.
        beyond = begins[:, None] + jnp.clip(place - full, 0, own - 1)
        return number * (positions // PAGE) + jnp.where(place < full, place, beyond)

    def sharing(self, path: Any, count: Int[Array, ""]) -> "PagedKVCache":
        """Takes the first `count` positions of a path of this kind for all rows."""
        pages = tuple(
            slots.at[:, :, : self.room].set(of_path[:, :, : self.room])
            for slots, of_path in zip(self.pages, path.pages, strict=True)
        )
        return replace(self, pages=pages, shared=count)

    def with_row(
        self, path: Any, *, row: Int[Array, ""], length: Int[Array, ""]
    ) -> "PagedKVCache":
        """Puts `length` positions of a path, less the shared ones, into a row."""
        shard, place = jnp.divmod(row, self.lengths.shape[0] // self.pages[0].shape[1])
        at = (0, shard, self.room + place * self._own, 0, 0)

        def taken(slots: Array, of_path: Array) -> Array:
            own = jax.lax.dynamic_slice_in_dim(of_path, self._first, self._own, 2)
            return jax.lax.dynamic_update_slice(slots, own, at)

        return replace(
            self,
            pages=tuple(map(taken, self.pages, path.pages)),
            lengths=self.lengths.at[row].set(length - self.shared),
        )

    def constrain(self, mesh: Mesh) -> "PagedKVCache":
        """Gives the slots the layout on the mesh that every program keeps."""
        heads = self.backend.heads_word(self.kv_heads)
        words = ("layers", "batch", "time", heads, "head_dim")
        return replace(
            self,
            pages=tuple(constrain(pages, words, mesh) for pages in self.pages),
            shared=constrain(self.shared, (), mesh),
            lengths=constrain(self.lengths, ("batch",), mesh),
        )


def _whole_pages(positions: int) -> int:
    return positions + -positions % PAGE
