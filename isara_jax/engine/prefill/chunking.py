"""How prompts are cut into stretches, and these into chunks of a few fixed widths.

A prompt goes on from the one before it where both part. How a position was cut shows
in its last bit, so the cuts follow from the prompts of a step, not from what was run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from isara_jax.runtime import Mesh, platform_of


@dataclass(frozen=True, kw_only=True)
class ChunkWidths:
    """The positions that may be run at once; `overhead` is a chunk's cost in positions.

    Each width is compiled. Narrow ones end a prompt with less padding.
    """

    sizes: tuple[int, ...]
    overhead: int


# Measured with SmolLM2-135M on 2 CPU cores: a chunk took 17 ms and 0.81 ms a position
# more. A width compiles for 2.6 s, once a machine; the three between 128 and 256 took
# a twelfth off the time of few-shot prompts, those below 128 next to nothing.
ON_CPU = ChunkWidths(sizes=(32, 64, 128, 160, 192, 224, 256), overhead=20)
# An accelerator reads all weights a chunk, in the time of some hundred positions.
ELSEWHERE = ChunkWidths(sizes=(128, 512, 1024), overhead=160)
# A beginning of fewer tokens is computed again: the cut would cost more.
LEAST_REUSED = 32


def chunk_widths(mesh: Mesh) -> ChunkWidths:
    """Returns the widths for the mesh's platform."""
    return ON_CPU if platform_of(mesh) == "cpu" else ELSEWHERE


@cache
def chunks_for(length: int, *, within: ChunkWidths) -> tuple[int, ...]:
    """Returns the widths, widest first, that run so many positions at the least cost.

    Together they cover the length; only the last one may be padded.
    """
    widest = within.sizes[-1]
    if length > widest:
        return (widest, *chunks_for(length - widest, within=within))
    covering = next(size for size in within.sizes if size >= length)
    narrower = [size for size in within.sizes if size < length]
    if not narrower:
        return (covering,)
    split = (narrower[-1], *chunks_for(length - narrower[-1], within=within))
    return min((covering,), split, key=lambda chunks: _cost(chunks, within))


def _cost(chunks: Sequence[int], within: ChunkWidths) -> int:
    return sum(chunks) + within.overhead * len(chunks)


@dataclass(frozen=True)
class PrefillSpan:
    """A stretch of positions that is run as one, in chunks that begin at its start.

    Of a prompt's cuts each is used up to where the next one starts, and may have been
    run for a prompt that was longer.
    """

    start: int
    end: int


PrefillSpans = tuple[PrefillSpan, ...]


def plan_spans(prompts: Sequence[Sequence[int]]) -> Iterator[PrefillSpans]:
    """Yields the cuts of prompts in the order of their tokens.

    A prompt goes on from the one before where both part. It does not matter which of
    them are run: the cuts say how what is missing has to be made up for.
    """
    before: Sequence[int] = ()
    spans: PrefillSpans = ()
    for tokens in prompts:
        if tokens != before:
            same = min(common_length(before, tokens), len(tokens) - 1)
            same = same if same >= LEAST_REUSED else 0
            kept = tuple(span for span in spans if span.start < same)
            spans = (*kept, PrefillSpan(same, len(tokens)))
        before = tokens
        yield spans


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Counts the tokens with which both begin."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


def spans_held(
    held: Sequence[int],
    held_cuts: PrefillSpans,
    *,
    tokens: Sequence[int],
    spans: PrefillSpans,
) -> int:
    """Counts the cuts, of all but the last, that lie in the row as they would.

    The row holds the tokens `held`, run in `held_cuts`.
    """
    same = common_length(held, tokens)
    for number, (span, following) in enumerate(pairwise(spans)):
        left = held_cuts[number + 1 :]
        intact = left[0].start if left else len(held)
        if held_cuts[number : number + 1] != (span,) or following.start > min(
            same, intact
        ):
            return number
    return len(spans) - 1
