"""A program of a run before it is compiled."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from isara_jax.fit.bounds import Work
from isara_jax.fit.request import FitRequest
from isara_jax.runtime import bytes_on_device


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program, its work, and the bytes that it occupies on one device.

    `argument_bytes` are those of its arguments by name, `resident_bytes` those of other
    arrays that lie there while it runs. A call of it is one `unit` of work.
    `lower` traces and lowers it, and may compile small programs itself.
    """

    name: str
    unit: str
    argument_bytes: dict[str, int]
    resident_bytes: dict[str, int]
    work: Work
    lower: Callable[[], jax.stages.Lowered]


def frozen_base_bytes(request: FitRequest) -> dict[str, int]:
    """Returns the bytes of the frozen base, which stays beside a merged model too."""
    if request.base is None:
        return {}
    return {"frozen base": bytes_on_device(request.base)}
