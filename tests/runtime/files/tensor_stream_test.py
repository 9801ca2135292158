"""A stream is cut into groups by size, and no two groups are in memory."""

import weakref

import numpy as np
import pytest

from isara_jax.runtime.files.tensor_stream import group_by_bytes


def tensors(*sizes):
    return [(f"t{n}", np.full(size, n, np.uint8)) for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([], []),
        ([4], [["t0"]]),
        ([5, 5, 1], [["t0", "t1"], ["t2"]]),
        ([6, 5, 5], [["t0"], ["t1", "t2"]]),
        ([99, 1, 99], [["t0"], ["t1"], ["t2"]]),
        ([1, 99], [["t0"], ["t1"]]),
        ([0, 0, 10], [["t0", "t1", "t2"]]),
    ],
)
def test_groups_are_as_large_as_they_may_be(sizes, groups):
    found = [list(group) for group in group_by_bytes(tensors(*sizes), most_bytes=10)]
    assert found == groups


def test_values_keep_their_names():
    for group in group_by_bytes(tensors(4, 4, 4), most_bytes=8):
        for name, value in group.items():
            assert value[0] == int(name[1:])


def test_a_group_is_gone_when_the_next_one_is_gathered():
    alive: list[weakref.ref] = []
    most = 0

    def stream():
        nonlocal most
        for number in range(9):
            value = np.zeros(5, np.uint8)
            alive.append(weakref.ref(value))
            yield f"t{number}", value
            del value
            most = max(most, sum(one() is not None for one in alive))

    for _ in group_by_bytes(stream(), most_bytes=10):
        pass
    assert most == 2


def test_one_name_for_two_tensors():
    twice = [*tensors(1), *tensors(1)]
    with pytest.raises(ValueError, match="two tensors are named 't0'"):
        list(group_by_bytes(twice, most_bytes=10))
