"""Bucketed sizes: programs are compiled for few counts of rows and positions."""


def round_up(value: int, multiple: int) -> int:
    """Returns the smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


def rows_within(slots: int, *, multiple: int) -> int:
    """Returns the largest multiple that is not above `slots`, or the first."""
    return max(slots // multiple, 1) * multiple


def bucketed_len(positions: int, *, step: int = 32) -> int:
    """Rounds up to a multiple of `step`, or an eighth, but never to a power of two.

    Each length is compiled for, so the buckets widen with the positions.

    A row stride of a power of two puts all rows of the cache into the same sets of the
    processor's cache: attention was measured 3 to 5 times slower there.
    """
    step = max(step, (1 << positions.bit_length()) // 16)
    length = round_up(positions, step)
    while length & (length - 1) == 0:
        length += step
    return length
