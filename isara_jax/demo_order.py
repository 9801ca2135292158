"""In which order a prompt's demonstrations stand.

The paper's order is that of the draw, or nearest first. Where prompts are written so
that they begin alike, the engine computes what they begin with once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from isara_jax.examples import Example

DemoOrder = Literal["paper", "shared"]


def arranged(
    prompts: Sequence[Sequence[Example]], *, order: DemoOrder
) -> list[list[Example]]:
    """Returns the demonstrations of each prompt in the order of their writing."""
    if order == "paper":
        return [list(demos) for demos in prompts]
    result: list[list[Example]] = [[] for _ in prompts]
    _share(prompts, list(range(len(prompts))), result)
    return result


def _share(
    prompts: Sequence[Sequence[Example]],
    places: list[int],
    result: list[list[Example]],
) -> None:
    """Lets the prompts at these places go on with the demo that most of them have.

    Those that do not have it go on among themselves: a trie, grown greedily. Of equally
    frequent ones the first in the paper's order is taken.
    """
    while places:
        counts: Counter[Example] = Counter()
        for place in places:
            written = set(result[place])
            counts.update(demo for demo in prompts[place] if demo not in written)
        if not counts:
            return
        demo, count = counts.most_common(1)[0]
        if count == 1:
            for place in places:
                written = set(result[place])
                result[place] += [d for d in prompts[place] if d not in written]
            return
        having = [place for place in places if demo in prompts[place]]
        for place in having:
            result[place].append(demo)
        _share(prompts, having, result)
        places = [place for place in places if demo not in prompts[place]]
