"""The order of demonstrations in a prompt: the paper's, or one that shares prefixes."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from isara_jax.examples import Example

DemoOrder = Literal["paper", "shared"]


def order_demos(
    prompts: Sequence[Sequence[Example]], *, order: DemoOrder
) -> list[list[Example]]:
    """Returns the demonstrations of each prompt in the order of their writing.

    `paper` keeps the given order. `shared` lets as many prompts as possible begin with
    the same demonstrations, as the engine computes a shared prefix once.
    """
    if order == "paper":
        return [list(demos) for demos in prompts]
    ordered: list[list[Example]] = [[] for _ in prompts]
    _grow_trie(prompts, list(range(len(prompts))), ordered)
    return ordered


def _grow_trie(
    prompts: Sequence[Sequence[Example]],
    members: list[int],
    ordered: list[list[Example]],
) -> None:
    """Orders the demonstrations of the `members`, whose ordered ones are equal so far.

    The demonstration that most members have comes next, and its members are ordered
    among themselves; then the others. Of equally frequent ones the first in the given
    order is taken.
    """
    while members:
        frequencies: Counter[Example] = Counter()
        for member in members:
            placed = set(ordered[member])
            frequencies.update(d for d in prompts[member] if d not in placed)
        if not frequencies:
            return
        demo, frequency = frequencies.most_common(1)[0]
        if frequency == 1:  # nothing is left to share
            for member in members:
                placed = set(ordered[member])
                ordered[member] += [d for d in prompts[member] if d not in placed]
            return
        having = [member for member in members if demo in prompts[member]]
        for member in having:
            ordered[member].append(demo)
        _grow_trie(prompts, having, ordered)
        members = [member for member in members if demo not in prompts[member]]
