"""Which request each slot of the decode batch continues: the host's view, a value."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isara_jax.engine.request import Request


@dataclass(frozen=True, kw_only=True)
class Slots:
    """A request a slot, or none, and how many tokens [B] were generated for it."""

    requests: tuple[Request | None, ...]
    generated: np.ndarray

    @property
    def occupied(self) -> np.ndarray:
        """Which slots [B] have a request."""
        return np.array([request is not None for request in self.requests])

    @property
    def free(self) -> Sequence[int]:
        """The slots that have none, in their order."""
        return np.flatnonzero(~self.occupied).tolist()

    @property
    def lengths(self) -> np.ndarray:
        """The positions [B] of each slot's prompt and continuation."""
        prompts = [
            len(request.token_ids) if request else 0 for request in self.requests
        ]
        return np.array(prompts) + self.generated

    def assign(self, slot: int, request: Request) -> "Slots":
        """Gives a slot to a request that is to be continued."""
        generated = self.generated.copy()
        generated[slot] = 0
        return Slots(requests=self._with(slot, request), generated=generated)

    def release(self, slot: int) -> "Slots":
        """Frees a slot."""
        return replace(self, requests=self._with(slot, None))

    def take(self, rows: np.ndarray) -> "Slots":
        """Keeps the given slots only, as those of a compacted batch."""
        requests = tuple(self.requests[row] for row in rows)
        return Slots(requests=requests, generated=self.generated[rows])

    def _with(self, slot: int, request: Request | None) -> tuple[Request | None, ...]:
        return (*self.requests[:slot], request, *self.requests[slot + 1 :])


def empty_slots(count: int) -> Slots:
    """Returns so many slots without a request."""
    return Slots(requests=(None,) * count, generated=np.zeros(count, np.int64))
