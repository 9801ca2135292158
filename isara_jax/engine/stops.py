"""Where a continuation ends: at the first stop string past its beginning."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Returns where the first stop string begins; one at position 0 does not count."""
    found = [at for at in (text.find(stop, 1) for stop in stops) if at > 0]
    return min(found, default=None)


def tokens_until_stop(
    tokens: Sequence[int], *, stops: Sequence[str], decode: Decode
) -> int | None:
    """Counts the tokens up to the one that completes a stop string, if there is one.

    What is made of these tokens alone does not depend on how many more were decoded
    before the stop was noticed.
    """
    if find_stop(decode(tokens), stops) is None:
        return None
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if find_stop(decode(tokens[:middle]), stops) is None:
            low = middle + 1
        else:
            high = middle
    return low
