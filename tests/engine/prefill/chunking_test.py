"""Prompts in spans, and spans in chunks of few widths."""

import pytest

from isara_jax.engine.prefill.chunking import (
    ChunkWidths,
    PrefillSpan,
    chunks_for,
    common_prefix_len,
    count_reusable_spans,
    plan_spans,
)

WIDTHS = ChunkWidths(sizes=(4, 8, 16), overhead=2)


@pytest.mark.parametrize(
    ("length", "chunks"),
    [
        (1, (4,)),
        (4, (4,)),
        (5, (8,)),
        (9, (8, 4)),
        (12, (8, 4)),
        (13, (16,)),
        (16, (16,)),
        (17, (16, 4)),
        (40, (16, 16, 8)),
    ],
)
def test_the_chunks_of_a_span(length, chunks):
    assert chunks_for(length, widths=WIDTHS) == chunks


def test_a_dear_chunk_is_rather_padded():
    assert chunks_for(9, widths=ChunkWidths(sizes=(4, 8, 16), overhead=4)) == (16,)
    assert chunks_for(9, widths=ChunkWidths(sizes=(4, 8, 16), overhead=3)) == (8, 4)


@pytest.mark.parametrize("length", range(1, 70))
def test_only_the_last_chunk_is_padded(length):
    chunks = chunks_for(length, widths=WIDTHS)
    assert sum(chunks[:-1]) < length <= sum(chunks)
    assert sum(chunks) - length < 4 or len(chunks) == 1 or chunks[-1] > 4


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [((), (1,), 0), ((1, 2), (1, 3), 1), ((1, 2), (1, 2), 2), ((1,), (1, 2), 1)],
)
def test_common_prefix_len(one, other, count):
    assert common_prefix_len(one, other) == common_prefix_len(other, one) == count


A, B, C = [*range(50)], [*range(40), 7, 7], [*range(40), 7, 8, 8]


def test_a_prompt_continues_where_it_parts_from_the_one_before():
    whole, branch = PrefillSpan(0, 50), PrefillSpan(40, 42)
    assert [*plan_spans([A, A, B, C])] == [
        (whole,),
        (whole,),
        (whole, branch),
        (whole, branch, PrefillSpan(41, 43)),
    ]


def test_a_short_shared_prefix_is_computed_again():
    assert [*plan_spans([A, [*range(31), 7]])][1] == (PrefillSpan(0, 32),)
    assert [*plan_spans([A, [*range(32), 7]])][1] == (
        PrefillSpan(0, 50),
        PrefillSpan(32, 33),
    )


def test_a_prompt_that_ends_within_another_keeps_a_token_of_its_own():
    assert [*plan_spans([A, A[:45]])][1] == (PrefillSpan(0, 50), PrefillSpan(44, 45))


def test_which_spans_of_the_cache_are_reused():
    spans = dict(zip("ABC", plan_spans([A, B, C]), strict=True))

    def reusable(before, before_spans, tokens, of):
        return count_reusable_spans(
            before, before_spans, token_ids=tokens, spans=spans[of]
        )

    assert reusable((), (), C, "C") == 0
    assert reusable(A, spans["A"], B, "B") == 1
    assert reusable(A, spans["A"], C, "C") == 1
    assert reusable(B, spans["B"], C, "C") == 2
    assert reusable([*range(39), 7, 7], spans["A"], B, "B") == 0
    assert reusable(B, (PrefillSpan(0, 50), PrefillSpan(30, 42)), B, "B") == 0
