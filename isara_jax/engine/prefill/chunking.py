"""Chunked prefill: in which spans and chunks a prompt's positions are computed.

A prompt continues from the one before where both part, so its positions fall into
spans. A span is computed in chunks of a few fixed widths. A position's last bit depends
on its chunk; so the spans follow from the prompts of a call, not from what was computed
before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from isara_jax.runtime import Mesh, platform_of


@dataclass(frozen=True, kw_only=True)
class ChunkWidths:
    """The widths of chunks in positions; each is compiled for.

    Narrow ones end a span with less padding. `overhead` is what a chunk costs beside
    its positions, counted in positions.
    """

    sizes: tuple[int, ...]
    overhead: int


# Measured with SmolLM2-135M on 2 CPU cores: a chunk took 17 ms and 0.81 ms a position
# more. A width compiles for 2.6 s, once a machine; the three between 128 and 256 took
# a twelfth off the time of few-shot prompts, those below 128 next to nothing.
CPU_WIDTHS = ChunkWidths(sizes=(32, 64, 128, 160, 192, 224, 256), overhead=20)
# An accelerator reads all weights a chunk, in the time of some hundred positions.
ACCELERATOR_WIDTHS = ChunkWidths(sizes=(128, 512, 1024), overhead=160)
# A shorter shared prefix is computed again: one more span would cost more.
MIN_REUSED_TOKENS = 32


def chunk_widths(mesh: Mesh) -> ChunkWidths:
    """Returns the widths for the mesh's platform."""
    return CPU_WIDTHS if platform_of(mesh) == "cpu" else ACCELERATOR_WIDTHS


@cache
def chunks_for(length: int, *, widths: ChunkWidths) -> tuple[int, ...]:
    """Returns the chunks, widest first, that cover so many positions at least cost.

    Only the last one may be padded.
    """
    widest = widths.sizes[-1]
    if length > widest:
        return (widest, *chunks_for(length - widest, widths=widths))
    covering = next(size for size in widths.sizes if size >= length)
    narrower = [size for size in widths.sizes if size < length]
    if not narrower:
        return (covering,)
    split = (narrower[-1], *chunks_for(length - narrower[-1], widths=widths))
    return min((covering,), split, key=lambda chunks: _cost(chunks, widths))


def _cost(chunks: Sequence[int], widths: ChunkWidths) -> int:
    return sum(chunks) + widths.overhead * len(chunks)


@dataclass(frozen=True)
class PrefillSpan:
    """Positions `start` to `end` that are computed together, in chunks.

    A prompt reads a span up to the start of its next span. `end` may lie beyond that:
    the span was then computed for another prompt, which shares its first positions.
    """

    start: int
    end: int


PrefillSpans = tuple[PrefillSpan, ...]


def plan_spans(prompts: Sequence[Sequence[int]]) -> Iterator[PrefillSpans]:
    """Yields the spans of prompts, which come in the order of their token ids.

    A prompt continues from the one before where both part. It does not matter which of
    the prompts are computed: the spans say how to compute what is missing.
    """
    last: Sequence[int] = ()
    spans: PrefillSpans = ()
    for token_ids in prompts:
        if token_ids != last:
            start = min(common_prefix_len(last, token_ids), len(token_ids) - 1)
            start = start if start >= MIN_REUSED_TOKENS else 0
            kept = tuple(span for span in spans if span.start < start)
            spans = (*kept, PrefillSpan(start, len(token_ids)))
        last = token_ids
        yield spans


def common_prefix_len(one: Sequence[int], other: Sequence[int]) -> int:
    """Counts the tokens with which both begin."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


def count_reusable_spans(
    cached: Sequence[int],
    cached_spans: PrefillSpans,
    *,
    token_ids: Sequence[int],
    spans: PrefillSpans,
) -> int:
    """Counts the spans of a prompt that the cache holds as they would be computed.

    The last one is never among them. The cache holds the tokens `cached`, computed in
    `cached_spans`.
    """
    shared = common_prefix_len(cached, token_ids)
    for index, (span, following) in enumerate(pairwise(spans)):
        later = cached_spans[index + 1 :]
        intact = later[0].start if later else len(cached)
        if cached_spans[index : index + 1] != (span,) or following.start > min(
            shared, intact
        ):
            return index
    return len(spans) - 1
