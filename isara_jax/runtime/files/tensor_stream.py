"""Streams of named tensors, of which a few at a time are in memory."""

from collections.abc import Iterable, Iterator

import numpy as np

Tensors = Iterable[tuple[str, np.ndarray]]


def group_by_bytes(
    tensors: Tensors, *, most_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the tensors in groups of at most `most_bytes`, or of one larger tensor.

    A group is emptied before the next one is filled, since two would need twice the
    memory.

    Raises:
      ValueError: two tensors of a group have one name.
    """
    group: dict[str, np.ndarray] = {}
    size = 0
    for name, tensor in tensors:
        if group and size + tensor.nbytes > most_bytes:
            yield group
            group.clear()
            size = 0
        if name in group:
            raise ValueError(f"two tensors are named {name!r}")
        group[name] = tensor
        size += tensor.nbytes
        del tensor
    if group:
        yield group
        group.clear()
