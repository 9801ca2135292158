"""The path: one row in which prompts are run, each from where it leaves the one before.

Prompts that come in the order of their tokens share their beginnings with their
neighbours, as in a trie that is walked depth first; so one row is all the memory that
the reuse of beginnings takes. From here a prompt's keys and values go into a slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache import (
    KVCache,
    LayerBlocks,
    cache_capacity,
    constrain_cache,
    empty_kv_cache,
)
from isara_jax.engine.prefill.chunking import (
    PrefillSpan,
    PrefillSpans,
    chunk_widths,
    chunks_for,
    spans_held,
)
from isara_jax.models import Decoder, run_blocks
from isara_jax.models.attention import KEY_BLOCK, attention_backend
from isara_jax.runtime import Mesh, constrain


def prefix_cache_len(longest: int, mesh: Mesh) -> int:
    """Returns the positions that a path for prompts of so many tokens needs."""
    return cache_capacity(longest + chunk_widths(mesh).sizes[-1], step=KEY_BLOCK)


@dataclass
class PrefixCache:
    """The row, and the tokens whose keys and values it holds.

    `run_tokens` and `reused_tokens` count what was computed and what was there.
    """

    stack: LayerBlocks
    cache: KVCache
    mesh: Mesh
    tokens: tuple[int, ...] = ()
    spans: PrefillSpans = ()
    logits: Float[Array, " V"] | None = None
    run_tokens: int = 0
    reused_tokens: int = 0

    def run(self, tokens: Sequence[int], spans: PrefillSpans) -> None:
        """Makes the row hold these tokens, and `logits` those after the last one."""
        tokens = tuple(tokens)
        if (tokens, spans) == (self.tokens, self.spans):
            self.reused_tokens += len(tokens)
            return
        held = spans_held(self.tokens, self.spans, tokens=tokens, spans=spans)
        for span in spans[held:]:
            hidden = self._run_cut(tokens, span)
        self.logits = logits_after(self.stack.model, hidden)
        start = spans[held].start
        self.reused_tokens += start
        self.run_tokens += len(tokens) - start
        self.tokens, self.spans = tokens, spans

    def _run_cut(
        self, tokens: tuple[int, ...], span: PrefillSpan
    ) -> Float[Array, " D"]:
        """Returns the hidden state after the cut's last token."""
        start = span.start
        for width in chunks_for(span.end - span.start, within=chunk_widths(self.mesh)):
            given = tokens[start : min(start + width, span.end)]
            chunk = np.zeros((1, width), np.int32)
            chunk[0, : len(given)] = given
            self.cache, hidden = prefill_chunk(
                self.stack,
                chunk,
                self.cache,
                start=np.int32(start),
                last=np.int32(max(len(given), 1) - 1),
                kv_len=self.cache.kv_len(start + width),
                mesh=self.mesh,
            )
            start += width
        return hidden


def empty_prefix_cache(stack: LayerBlocks, *, longest: int, mesh: Mesh) -> PrefixCache:
    """Returns an empty path for prompts of up to so many tokens."""
    row = empty_row(stack, capacity=prefix_cache_len(longest, mesh), mesh=mesh)
    return PrefixCache(stack, row, mesh)


@partial(jax.jit, static_argnames=("capacity", "mesh"))
def empty_row(stack: LayerBlocks, *, capacity: int, mesh: Mesh) -> KVCache:
    """Returns a path's row, of which no position is written."""
    row = empty_kv_cache(
        stack, rows=1, capacity=capacity, shared=0, backend=attention_backend(mesh)
    )
    return constrain_cache(row, mesh)


@partial(jax.jit, donate_argnames=("cache",), static_argnames=("kv_len", "mesh"))
def prefill_chunk(
    stack: LayerBlocks,
    tokens: Int[Array, "1 T"],
    cache: KVCache,
    *,
    start: Int[Array, ""],
    last: Int[Array, ""],
    kv_len: int,
    mesh: Mesh,
) -> tuple[KVCache, Float[Array, " D"]]:
    """Runs T tokens from position `start` on, none of which is beyond `kv_len`.

    Returns the hidden state after that of them with number `last`.
    """
    positions = start + jnp.arange(tokens.shape[1])[None, :]
    x = stack.model.embed(tokens, positions)
    x, blocks = run_blocks(
        stack.model,
        stack.blocks,
        constrain(x, ("time", "chunk", "norm"), mesh),
        positions=positions,
        caches=cache.blocks,
        attend=cache.prefill_attention(
            start=start, kv_len=kv_len, window=stack.model.config.window
        ),
    )
    return constrain_cache(cache.holding(blocks), mesh), x[0, last]


@jax.jit
def logits_after(model: Decoder, hidden: Float[Array, " D"]) -> Float[Array, " V"]:
    """Applies the head: once a prompt, as on CPU it costs as much as some positions."""
    return model.logits(hidden[None])[0]
