"""Few sizes are compiled for, and none whose row stride is a power of two."""

import pytest

from isara_jax.engine.kv_cache.sizes import bucketed_len, round_up, rows_within


@pytest.mark.parametrize(("value", "rounded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_rounded_up(value, rounded):
    assert round_up(value, 8) == rounded


@pytest.mark.parametrize(("slots", "rows"), [(1, 4), (4, 4), (7, 4), (8, 8)])
def test_rows_are_a_multiple_and_at_least_one_of_it(slots, rows):
    assert rows_within(slots, multiple=4) == rows


def test_a_length_holds_its_positions_in_few_buckets():
    lengths = [bucketed_len(positions) for positions in range(1, 4097)]
    assert lengths == sorted(lengths)
    for positions, length in enumerate(lengths, start=1):
        assert positions <= length <= max(positions + 96, 1.2 * positions)
        assert length & (length - 1) != 0, "a power of two"
    assert len(set(lengths)) <= 50


def test_a_length_is_a_multiple_of_the_step():
    assert {bucketed_len(positions, step=128) % 128 for positions in range(1, 999)} == {
        0
    }
