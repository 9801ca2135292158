"""The prefix cache: one KV row in which prompts are prefilled one after another.

Prompts come in the order of their token ids. Each then shares its prefix with the one
before, as in a trie that is walked depth first, so the cache needs one row only. From
there a prompt's keys and values are copied into a slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache import (
    KVCache,
    LayerBlocks,
    bucketed_len,
    constrain_cache,
    empty_kv_cache,
)
from isara_jax.engine.prefill.chunking import (
    PrefillSpan,
    PrefillSpans,
    chunk_widths,
    chunks_for,
    count_reusable_spans,
)
from isara_jax.models import Decoder, run_blocks
from isara_jax.models.attention import KEY_BLOCK, AttentionBackend, attention_backend
from isara_jax.runtime import Mesh, constrain


def prefix_cache_len(longest: int, mesh: Mesh) -> int:
    """Returns the positions that a row for prompts of so many tokens needs."""
    return bucketed_len(longest + chunk_widths(mesh).sizes[-1], step=KEY_BLOCK)


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A prefilled prompt, ready to be inserted into a slot.

    Attributes:
      kv_row: the prompt's keys and values from position 0 on. It is the row of the
        prefix cache: the cache's next `prefill` donates it.
      logits: those after the prompt's last token.
      token_ids: the prompt.
      computed_tokens: how many of them were computed.
      reused_tokens: how many the cache held already.
    """

    kv_row: KVCache
    logits: Float[Array, " V"]
    token_ids: tuple[int, ...]
    computed_tokens: int
    reused_tokens: int

    @property
    def length(self) -> int:
        """The tokens of the prompt."""
        return len(self.token_ids)


@dataclass(frozen=True, kw_only=True)
class PrefixCache:
    """A KV row and, if it holds one, the prefix that was computed last."""

    layer_blocks: LayerBlocks
    mesh: Mesh
    kv_row: KVCache
    prefix: Prefix | None = None
    spans: PrefillSpans = ()

    def prefill(
        self, token_ids: Sequence[int], spans: PrefillSpans
    ) -> tuple["PrefixCache", Prefix]:
        """Computes what the cache does not hold of a prompt.

        `spans` say in which parts a prompt is computed, see `plan_spans`. The row's
        buffers are donated: this value is consumed, the returned one takes its place.
        """
        token_ids = tuple(token_ids)
        last_ids = self.prefix.token_ids if self.prefix else ()
        if self.prefix and (token_ids, spans) == (last_ids, self.spans):
            reused = len(token_ids)
            return self, replace(self.prefix, computed_tokens=0, reused_tokens=reused)
        reusable = count_reusable_spans(
            last_ids, self.spans, token_ids=token_ids, spans=spans
        )
        kv_row = self.kv_row
        for span in spans[reusable:]:
            kv_row, hidden = _prefill_span(
                self.layer_blocks, token_ids, kv_row, span=span, mesh=self.mesh
            )
        prefix = Prefix(
            kv_row=kv_row,
            logits=logits_after(self.layer_blocks.model, hidden),
            token_ids=token_ids,
            computed_tokens=len(token_ids) - spans[reusable].start,
            reused_tokens=spans[reusable].start,
        )
        return replace(self, kv_row=kv_row, prefix=prefix, spans=spans), prefix


def empty_prefix_cache(
    layer_blocks: LayerBlocks,
    *,
    longest: int,
    mesh: Mesh,
    backend: AttentionBackend | None = None,
) -> PrefixCache:
    """Returns a cache for prompts of up to `longest` tokens, with nothing computed.

    `backend` is the one that the slots are for: the platform's own unless given.
    """
    max_len = prefix_cache_len(longest, mesh)
    row = empty_row(layer_blocks, max_len=max_len, mesh=mesh, backend=backend)
    return PrefixCache(layer_blocks=layer_blocks, mesh=mesh, kv_row=row)


def _prefill_span(
    layer_blocks: LayerBlocks,
    token_ids: tuple[int, ...],
    kv_row: KVCache,
    *,
    span: PrefillSpan,
    mesh: Mesh,
) -> tuple[KVCache, Float[Array, " D"]]:
    """Computes a span in chunks; returns the hidden state after its last token."""
    start = span.start
    for width in chunks_for(span.end - span.start, widths=chunk_widths(mesh)):
        given = token_ids[start : min(start + width, span.end)]
        chunk = np.zeros((1, width), np.int32)
        chunk[0, : len(given)] = given
        kv_row, hidden = prefill_chunk(
            layer_blocks,
            chunk,
            kv_row,
            start=np.int32(start),
            last=np.int32(max(len(given), 1) - 1),
            kv_len=kv_row.kv_len(start + width),
            mesh=mesh,
        )
        start += width
    return kv_row, hidden


@partial(jax.jit, static_argnames=("max_len", "mesh", "backend"))
def empty_row(
    layer_blocks: LayerBlocks,
    *,
    max_len: int,
    mesh: Mesh,
    backend: AttentionBackend | None = None,
) -> KVCache:
    """Returns a KV cache of one row, with nothing written."""
    row = empty_kv_cache(
        layer_blocks,
        rows=1,
        max_len=max_len,
        max_shared_len=0,
        backend=backend or attention_backend(mesh),
    )
    return constrain_cache(row, mesh)


@partial(jax.jit, donate_argnames=("kv_row",), static_argnames=("kv_len", "mesh"))
def prefill_chunk(
    layer_blocks: LayerBlocks,
    tokens: Int[Array, "1 T"],
    kv_row: KVCache,
    *,
    start: Int[Array, ""],
    last: Int[Array, ""],
    kv_len: int,
    mesh: Mesh,
) -> tuple[KVCache, Float[Array, " D"]]:
    """Computes T tokens from position `start` on; no position is beyond `kv_len`.

    Returns the row and the hidden state after the chunk's token at index `last`.
    """
    model = layer_blocks.model
    positions = start + jnp.arange(tokens.shape[1])[None, :]
    x = model.embed(tokens, positions)
    x, blocks = run_blocks(
        model,
        layer_blocks.blocks,
        constrain(x, ("time", "chunk", "norm"), mesh),
        positions=positions,
        caches=kv_row.blocks,
        attend=kv_row.prefill_attention(
            start=start, kv_len=kv_len, window=model.config.window
        ),
    )
    return constrain_cache(kv_row.with_blocks(blocks), mesh), x[0, last]


@jax.jit
def logits_after(model: Decoder, hidden: Float[Array, " D"]) -> Float[Array, " V"]:
    """Applies the head: once a prompt, as on CPU it costs as much as some positions."""
    return model.logits(hidden[None])[0]
