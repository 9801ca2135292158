"""The path: one row in which prompts are run, each from where it leaves the one before.

Prompts that come in the order of their tokens share their beginnings with their
neighbours, as in a trie that is walked depth first; so one row is all the memory that
the reuse of beginnings takes. From here a prompt's keys and values go into a slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from isara_jax.engine.slots import SlotCache, empty_slots
from isara_jax.engine.stack import Stack, run_blocks
from isara_jax.models.decoder import Attend
from isara_jax.models.layers import attention

# Positions run at once. The narrow one ends a prompt with less padding.
CHUNKS = (64, 256)
# Attention reads the path up to a multiple of this many positions; each is compiled.
REACH = 256


def path_capacity(longest: int) -> int:
    """Returns the positions that a path for prompts of so many tokens needs."""
    return -(-longest // REACH) * REACH + CHUNKS[-1]


@dataclass
class Path:
    """The row, and the tokens whose keys and values it holds.

    `run_tokens` and `reused_tokens` count what was computed and what was there.
    """

    stack: Stack
    cache: SlotCache
    tokens: tuple[int, ...] = ()
    logits: Float[Array, " V"] | None = None
    run_tokens: int = 0
    reused_tokens: int = 0

    def run(self, tokens: Sequence[int]) -> None:
        """Makes the row hold these tokens, and `logits` those after the last one."""
        tokens = tuple(tokens)
        start = common_length(self.tokens, tokens)
        if start == len(tokens) == len(self.tokens):
            self.reused_tokens += start
            return
        start = min(start, len(tokens) - 1)
        self.reused_tokens += start
        self.run_tokens += len(tokens) - start
        while start < len(tokens):
            left = len(tokens) - start
            width = next((size for size in CHUNKS if size >= left), CHUNKS[-1])
            count = min(width, left)
            chunk = np.zeros((1, width), np.int32)
            chunk[0, :count] = tokens[start : start + count]
            self.cache, logits = advance(
                self.stack,
                chunk,
                self.cache,
                start=np.int32(start),
                last=np.int32(count - 1),
                reach=-(-(start + width) // REACH) * REACH,
            )
            start += count
        self.tokens, self.logits = tokens, logits


def new_path(stack: Stack, *, longest: int) -> Path:
    """Returns an empty path for prompts of up to so many tokens."""
    capacity = path_capacity(longest)
    return Path(stack, empty_slots(stack, rows=1, capacity=capacity, shared=0))


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Counts the tokens with which both begin."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


@partial(jax.jit, donate_argnames=("cache",), static_argnames=("reach",))
def advance(
    stack: Stack,
    tokens: Int[Array, "1 T"],
    cache: SlotCache,
    *,
    start: Int[Array, ""],
    last: Int[Array, ""],
    reach: int,
) -> tuple[SlotCache, Float[Array, " V"]]:
    """Runs T tokens from position `start` on, none of which is beyond `reach`.

    Returns the logits after that of them with number `last`.
    """
    positions = start + jnp.arange(tokens.shape[1])[None, :]
    columns = jnp.arange(reach)
    visible = columns <= positions[..., None]
    if stack.model.config.window:
        visible &= columns > positions[..., None] - stack.model.config.window

    def attend(block: tuple, number: Array) -> Attend:
        keys, values = block

        def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
            longer_keys = jax.lax.dynamic_update_slice(
                keys, k.transpose(0, 2, 3, 1)[None], (number, 0, 0, 0, start)
            )
            longer_values = jax.lax.dynamic_update_slice(
                values, v.swapaxes(1, 2)[None], (number, 0, 0, start, 0)
            )
            near_keys = longer_keys[number][..., :reach].swapaxes(2, 3)
            near_values = longer_values[number][:, :, :reach]
            mixed = attention(q, near_keys, near_values, visible=visible)
            return mixed, (longer_keys, longer_values)

        return attended

    x, blocks = run_blocks(
        stack,
        stack.model.embed(tokens, positions),
        positions=positions,
        caches=tuple(zip(cache.keys, cache.values, strict=True)),
        attend=attend,
    )
    keys, values = zip(*blocks, strict=True)
    hidden = jax.lax.dynamic_slice_in_dim(x[0], last, 1)
    return replace(cache, keys=keys, values=values), stack.model.logits(hidden)[0]
