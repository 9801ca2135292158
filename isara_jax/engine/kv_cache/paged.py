"""The KV cache for the paged kernel of TPU: keys and values side by side in pages.

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

from isara_jax.models import Attend, DecoderConfig
from isara_jax.models.attention import (
    PAGE,
    AttentionBackend,
    interleave_kv,
    padded_head_size,
    padded_kv_heads,
    paged_attention,
)
from isara_jax.runtime import Mesh, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PagedKVCache:
    """The pages of each block of layers, [l, G, S, C, W]; each of G shards has rows.

    C counts keys and values of the KV heads, W is a head's padded size.

    Attributes:
      shared_len: the positions of the prefix that all rows share.
      lengths: each row's own positions behind it.
      max_shared_len: the positions of the shared pages, of which each shard has a copy.
    """

    pages: tuple[Float[Array, "_ G S C W"], ...]
    shared_len: Int[Array, ""]
    lengths: Int[Array, " B"]
    max_shared_len: int = field(metadata={"static": True})
    kv_heads: int = field(metadata={"static": True})
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
    ) -> "PagedKVCache":
        """Returns a cache with nothing written, for blocks of so many layers."""
        data, model = 1, 1
        if backend.mesh is not None:
            data, model = backend.mesh.shape["data"], backend.mesh.shape["model"]
        shards = data if rows % data == 0 else 1
        parts = model if config.kv_heads % model == 0 else 1
        heads = parts * padded_kv_heads(config.kv_heads // parts, dtype)
        shared_len = _whole_pages(max_shared_len)
        # One page more, for what the row has of the last shared one.
        own = _whole_pages(max_len) + PAGE
        shape = (
            *(shards, shared_len + rows // shards * own),
            *(2 * heads, padded_head_size(config.head_size)),
        )
        return cls(
            pages=tuple(jnp.zeros((count, *shape), dtype) for count in layers),
            shared_len=jnp.zeros((), jnp.int32),
            lengths=jnp.zeros(rows, jnp.int32),
            max_shared_len=shared_len,
            kv_heads=config.kv_heads,
            backend=backend,
        )

    @property
    def blocks(self) -> tuple[Array, ...]:
        """The pages of every block of layers."""
        return self.pages

    def with_blocks(self, blocks: tuple[Array, ...]) -> "PagedKVCache":
        """Returns the cache with the pages of the given blocks."""
        return replace(self, pages=blocks)

    @property
    def _row_start(self) -> Int[Array, ""]:
        """The position with which every row's own pages begin."""
        return self.shared_len - self.shared_len % PAGE

    @property
    def _row_len(self) -> int:
        """The positions of a row's own pages."""
        shards, positions = self.pages[0].shape[1:3]
        return (positions - self.max_shared_len) * shards // self.lengths.shape[0]

    def decode_attention(
        self, *, window: int | None
    ) -> Callable[[Array, Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to it."""
        start = self.shared_len - self._row_start + self.lengths
        return self._attend(start, window=window)

    def kv_len(self, end: int) -> int:
        """Returns how many positions a chunk up to `end` reads, one program each."""
        del end
        return self._row_len

    def prefill_attention(
        self,
        *,
        start: Int[Array, ""],
        kv_len: int,
        window: int | None,
    ) -> Callable[[Array, Array], Attend]:
        """Writes T tokens from `start` on; each attends to the positions up to it."""
        del kv_len
        return self._attend(start[None], window=window)

    def _attend(
        self, start: Int[Array, " B"], *, window: int | None
    ) -> Callable[[Array, Array], Attend]:
        """Writes tokens from `start` of every row's own pages on, and attends."""

        def run(*arrays: Array) -> tuple[Array, Array]:
            q, k, v, pages, start, row_start, layer = arrays
            written = self._write(k, v, pages, start, layer)
            pool = written.reshape(-1, PAGE, *written.shape[3:])
            mixed = paged_attention(
                q,
                pool,
                kv_heads=k.shape[2],
                lengths=row_start + jnp.minimum(start + q.shape[1], self._row_len),
                table=self._page_table(q.shape[0], row_start, layer, pages.shape[2]),
                window=window,
            )
            return mixed, written

        def attend(pages: Array, layer: Array) -> Attend:
            def attended(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
                heads = self.backend.heads_axis(self.kv_heads)
                tokens = ("batch", "time", heads, "head_dim")
                axes = ("layers", "batch", "time", heads, "head_dim")
                mixed, written = self.backend.run(
                    run,
                    *(q, k, v, pages, start, self._row_start, layer),
                    axes=(tokens, tokens, tokens, axes, ("batch",), (), ()),
                    outputs=((tokens, q.shape), (axes, pages.shape)),
                )
                return mixed, written

            return attended

        return attend

    def _write(
        self,
        k: Float[Array, "B T K H"],
        v: Float[Array, "B T K H"],
        pages: Float[Array, "l 1 S C W"],
        start: Int[Array, " B"],
        layer: Int[Array, ""],
    ) -> Float[Array, "l 1 S C W"]:
        rows, count = k.shape[:2]
        positions, heads, size = pages.shape[2], pages.shape[3] // 2, pages.shape[4]
        own = start[:, None] + jnp.arange(count)
        at = self.max_shared_len + self._row_len * jnp.arange(rows)[:, None] + own
        # Behind the last page nothing is written.
        at = jnp.where(own < self._row_len, at, positions)
        return pages.at[layer, 0, at].set(interleave_kv(k, v, heads=heads, size=size))

    def _page_table(
        self, rows: int, row_start: Array, layer: Array, positions: int
    ) -> Int[Array, "rows a_row"]:
        """Says in which of the pool's pages the positions of each row lie."""
        full, own = row_start // PAGE, self._row_len // PAGE
        place = jnp.arange(self.max_shared_len // PAGE + own)
        begins = self.max_shared_len // PAGE + own * jnp.arange(rows)
        # Nothing is read of the places that are clipped.
        beyond = begins[:, None] + jnp.clip(place - full, 0, own - 1)
        return layer * (positions // PAGE) + jnp.where(place < full, place, beyond)

    def share_prefix(self, kv_row: Any, shared_len: Int[Array, ""]) -> "PagedKVCache":
        """Copies the first positions of a one-row cache of this kind for all rows."""
        pages = tuple(
            pages.at[:, :, : self.max_shared_len].set(
                of_row[:, :, : self.max_shared_len]
            )
            for pages, of_row in zip(self.pages, kv_row.pages, strict=True)
        )
        return replace(self, pages=pages, shared_len=shared_len)

    def insert(
        self, kv_row: Any, *, row: Int[Array, ""], length: Int[Array, ""]
    ) -> "PagedKVCache":
        """Copies `length` positions of a one-row cache, less the shared, into a row."""
        shard, place = jnp.divmod(row, self.lengths.shape[0] // self.pages[0].shape[1])
        at = (0, shard, self.max_shared_len + place * self._row_len, 0, 0)

        def put(pages: Array, of_row: Array) -> Array:
            start, size = self._row_start, self._row_len
            own = jax.lax.dynamic_slice_in_dim(of_row, start, size, 2)
            return jax.lax.dynamic_update_slice(pages, own, at)

        return replace(
            self,
            pages=tuple(map(put, self.pages, kv_row.pages)),
            lengths=self.lengths.at[row].set(length - self.shared_len),
        )

    def constrain(self, mesh: Mesh) -> "PagedKVCache":
        """Constrains the cache to the sharding that all programs keep."""
        heads = self.backend.heads_axis(self.kv_heads)
        axes = ("layers", "batch", "time", heads, "head_dim")
        return replace(
            self,
            pages=tuple(constrain(pages, axes, mesh) for pages in self.pages),
            shared_len=constrain(self.shared_len, (), mesh),
            lengths=constrain(self.lengths, ("batch",), mesh),
        )


def _whole_pages(positions: int) -> int:
    return positions + -positions % PAGE
