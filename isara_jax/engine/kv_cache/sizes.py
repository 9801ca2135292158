"""The few sizes in which rows and positions are counted, each of which is compiled."""


def round_up(value: int, multiple: int) -> int:
    """Returns the smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


def rows_within(slots: int, *, multiple: int) -> int:
    """Returns the largest multiple that is not above `slots`, or the first."""
    return max(slots // multiple, 1) * multiple


def cache_capacity(positions: int, *, step: int = 32) -> int:
    """Rounds up to a multiple of `step`, or an eighth, but never to a power of two.

    Each capacity is compiled for, so the steps grow with the positions.

    A row stride of a power of two puts all rows of the cache into the same sets of the
    processor's cache: attention was measured 3 to 5 times slower there.
    """
    step = max(step, (1 << positions.bit_length()) // 16)
    capacity = round_up(positions, step)
    while capacity & (capacity - 1) == 0:
        capacity += step
    return capacity
