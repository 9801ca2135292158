"""The host's view of the decode batch, a value that changes return anew."""

import numpy as np
import pytest

from isara_jax.engine.request import Request
from isara_jax.engine.slots import empty_slots


def request(number, length=3):
    return Request(id=f"q{number}", sample_index=number, token_ids=tuple(range(length)))


@pytest.fixture
def slots():
    """Slots 0 and 2 of four are occupied."""
    return empty_slots(4).assign(0, request(0)).assign(2, request(1, length=5))


def test_free_and_occupied(slots):
    assert slots.occupied.tolist() == [True, False, True, False]
    assert slots.free == [1, 3]
    assert slots.lengths.tolist() == [3, 0, 5, 0]


def test_a_slot_is_released_and_taken_by_the_next(slots):
    later = slots.release(2)
    assert later.free == [1, 2, 3]
    assert slots.free == [1, 3]
    assert later.assign(2, request(7)).requests[2].id == "q7"


def test_an_assigned_slot_begins_with_nothing_generated(slots):
    slots.generated[:] = 9
    assigned = slots.assign(1, request(2))
    assert assigned.generated.tolist() == [9, 0, 9, 9]
    assert slots.generated.tolist() == [9, 9, 9, 9]
    assert assigned.lengths[1] == 3


def test_compaction_keeps_the_rows_that_are_named(slots):
    slots.generated[:] = np.arange(4)
    kept = slots.take(np.array([2, 0]))
    assert [r.id for r in kept.requests] == ["q1", "q0"]
    assert kept.generated.tolist() == [2, 0]
