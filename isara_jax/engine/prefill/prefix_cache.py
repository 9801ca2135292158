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
    SlotCache,
    Stack,
    cache_capacity,
    empty_slots,
    laid_out,
)
from isara_jax.engine.prefill.chunking import Cut, Cuts, chunks_of, cuts_held, widths
from isara_jax.models import Decoder, run_blocks
from isara_jax.models.attention import KEY_BLOCK, kernels_for
from isara_jax.runtime import Mesh, sharding_for


def path_capacity(longest: int, mesh: Mesh) -> int:
    """Returns the positions that a path for prompts of so many tokens needs."""
    return cache_capacity(longest + widths(mesh).sizes[-1], step=KEY_BLOCK)


@dataclass
class Path:
    """The row, and the tokens whose keys and values it holds.

    `run_tokens` and `reused_tokens` count what was computed and what was there.
    """

    stack: Stack
    cache: SlotCache
    mesh: Mesh
    tokens: tuple[int, ...] = ()
    cuts: Cuts = ()
    logits: Float[Array, " V"] | None = None
    run_tokens: int = 0
    reused_tokens: int = 0

    def run(self, tokens: Sequence[int], cuts: Cuts) -> None:
        """Makes the row hold these tokens, and `logits` those after the last one."""
        tokens = tuple(tokens)
        if (tokens, cuts) == (self.tokens, self.cuts):
            self.reused_tokens += len(tokens)
            return
        held = cuts_held(self.tokens, self.cuts, tokens=tokens, cuts=cuts)
        for cut in cuts[held:]:
            hidden = self._run_cut(tokens, cut)
        self.logits = logits_after(self.stack.model, hidden)
        start = cuts[held].start
        self.reused_tokens += start
        self.run_tokens += len(tokens) - start
        self.tokens, self.cuts = tokens, cuts

    def _run_cut(self, tokens: tuple[int, ...], cut: Cut) -> Float[Array, " D"]:
        """Returns the hidden state after the cut's last token."""
        start = cut.start
        for width in chunks_of(cut.end - cut.start, within=widths(self.mesh)):
            given = tokens[start : min(start + width, cut.end)]
            chunk = np.zeros((1, width), np.int32)
            chunk[0, : len(given)] = given
            self.cache, hidden = advance(
                self.stack,
                chunk,
                self.cache,
                start=np.int32(start),
                last=np.int32(max(len(given), 1) - 1),
                reach=self.cache.reach(start + width),
                mesh=self.mesh,
            )
            start += width
        return hidden


def new_path(stack: Stack, *, longest: int, mesh: Mesh) -> Path:
    """Returns an empty path for prompts of up to so many tokens."""
    row = empty_row(stack, capacity=path_capacity(longest, mesh), mesh=mesh)
    return Path(stack, row, mesh)


@partial(jax.jit, static_argnames=("capacity", "mesh"))
def empty_row(stack: Stack, *, capacity: int, mesh: Mesh) -> SlotCache:
    """Returns a path's row, of which no position is written."""
    row = empty_slots(
        stack, rows=1, capacity=capacity, shared=0, kernels=kernels_for(mesh)
    )
    return laid_out(row, mesh)


@partial(jax.jit, donate_argnames=("cache",), static_argnames=("reach", "mesh"))
def advance(
    stack: Stack,
    tokens: Int[Array, "1 T"],
    cache: SlotCache,
    *,
    start: Int[Array, ""],
    last: Int[Array, ""],
    reach: int,
    mesh: Mesh,
) -> tuple[SlotCache, Float[Array, " D"]]:
    """Runs T tokens from position `start` on, none of which is beyond `reach`.

    Returns the hidden state after that of them with number `last`.
    """
    positions = start + jnp.arange(tokens.shape[1])[None, :]
    x = stack.model.embed(tokens, positions)
    split = sharding_for(("time", "chunk", "norm"), x.shape, mesh)
    x, blocks = run_blocks(
        stack.model,
        stack.blocks,
        jax.lax.with_sharding_constraint(x, split),
        positions=positions,
        caches=cache.blocks,
        attend=cache.attend_chunk(
            start=start, reach=reach, window=stack.model.config.window
        ),
    )
    return laid_out(cache.holding(blocks), mesh), x[0, last]


@jax.jit
def logits_after(model: Decoder, hidden: Float[Array, " D"]) -> Float[Array, " V"]:
    """Applies the head: once a prompt, as on CPU it costs as much as some positions."""
    return model.logits(hidden[None])[0]
