"""The path: one row in which prompts are run, each from where it leaves the one before.

Prompts that come in the order of their tokens share their beginnings with their
neighbours, as in a trie that is walked depth first; so one row is all the memory that
the reuse of beginnings takes. From here a prompt's keys and values go into a slot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from isara_jax.engine.batches import round_up
from isara_jax.engine.slots import SlotCache, empty_slots, laid_out
from isara_jax.engine.stack import Stack, run_blocks
from isara_jax.models.attention import kernels_for
from isara_jax.runtime.mesh import Mesh

# Positions run at once. The narrow one ends a prompt with less padding.
CHUNKS = (64, 256)
# A beginning of fewer tokens is computed again: the cut would cost more.
LEAST_REUSED = 32
# Attention reads the path up to a multiple of this many positions; each is compiled.
REACH = 256


def path_capacity(longest: int) -> int:
    """Returns the positions that a path for prompts of so many tokens needs."""
    return round_up(longest, REACH) + CHUNKS[-1]


@dataclass(frozen=True)
class Cut:
    """A stretch of positions that is run as one, in chunks that begin at its start.

    Of a prompt's cuts each is used up to where the next one starts, and may have been
    run for a prompt that was longer. How a position was cut shows in its last bit.
    """

    start: int
    end: int


Cuts = tuple[Cut, ...]


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
        held = self._held(tokens, cuts)
        for cut in cuts[held:]:
            self._run_cut(tokens, cut)
        start = cuts[held].start
        self.reused_tokens += start
        self.run_tokens += len(tokens) - start
        self.tokens, self.cuts = tokens, cuts

    def _held(self, tokens: tuple[int, ...], cuts: Cuts) -> int:
        """Counts the cuts, of all but the last, that lie in the row as they would."""
        same = common_length(self.tokens, tokens)
        for number, (cut, following) in enumerate(pairwise(cuts)):
            left = self.cuts[number + 1 :]
            intact = left[0].start if left else len(self.tokens)
            if self.cuts[number : number + 1] != (cut,) or following.start > min(
                same, intact
            ):
                return number
        return len(cuts) - 1

    def _run_cut(self, tokens: tuple[int, ...], cut: Cut) -> None:
        start = cut.start
        while start < cut.end:
            left = cut.end - start
            width = next((size for size in CHUNKS if size >= left), CHUNKS[-1])
            given = tokens[start : min(start + width, cut.end)]
            chunk = np.zeros((1, width), np.int32)
            chunk[0, : len(given)] = given
            self.cache, self.logits = advance(
                self.stack,
                chunk,
                self.cache,
                start=np.int32(start),
                last=np.int32(max(len(given), 1) - 1),
                reach=round_up(start + width, REACH),
                mesh=self.mesh,
            )
            start += width


def new_path(stack: Stack, *, longest: int, mesh: Mesh) -> Path:
    """Returns an empty path for prompts of up to so many tokens."""
    return Path(stack, _empty(stack, capacity=path_capacity(longest), mesh=mesh), mesh)


@partial(jax.jit, static_argnames=("capacity", "mesh"))
def _empty(stack: Stack, *, capacity: int, mesh: Mesh) -> SlotCache:
    row = empty_slots(
        stack, rows=1, capacity=capacity, shared=0, kernels=kernels_for(mesh)
    )
    return laid_out(row, mesh)


def cuts_in_order(prompts: Sequence[Sequence[int]]) -> Iterator[Cuts]:
    """Yields the cuts of prompts in the order of their tokens.

    A prompt goes on from the one before where both part. It does not matter which of
    them are run: the cuts say how what is missing has to be made up for.
    """
    before: Sequence[int] = ()
    cuts: Cuts = ()
    for tokens in prompts:
        if tokens != before:
            same = min(common_length(before, tokens), len(tokens) - 1)
            same = same if same >= LEAST_REUSED else 0
            kept = tuple(cut for cut in cuts if cut.start < same)
            cuts = (*kept, Cut(same, len(tokens)))
        before = tokens
        yield cuts


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Counts the tokens with which both begin."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


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
) -> tuple[SlotCache, Float[Array, " V"]]:
    """Runs T tokens from position `start` on, none of which is beyond `reach`.

    Returns the logits after that of them with number `last`.
    """
    positions = start + jnp.arange(tokens.shape[1])[None, :]
    x, blocks = run_blocks(
        stack,
        stack.model.embed(tokens, positions),
        positions=positions,
        caches=cache.blocks,
        attend=cache.attend_chunk(
            positions, start=start, reach=reach, window=stack.model.config.window
        ),
    )
    hidden = jax.lax.dynamic_slice_in_dim(x[0], last, 1)
    longer = laid_out(cache.holding(blocks), mesh)
    return longer, stack.model.logits(hidden)[0]
