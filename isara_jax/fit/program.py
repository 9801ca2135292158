"""A program of a run before it is compiled, and what is known of it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from isara_jax.fit.bounds import Work
from isara_jax.fit.request import FitRequest, bytes_on_device


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is known of a program.

    `parts` are the bytes on a device of what it is given, by name, and `beside` those
    of what lies there meanwhile without being given to it. `lower` may itself compile
    small programs.
    """

    name: str
    unit: str
    parts: dict[str, int]
    beside: dict[str, int]
    work: Work
    lower: Callable[[], jax.stages.Lowered]


def frozen(setting: FitRequest) -> dict[str, int]:
    """Returns what the base takes: it stays, even beside a model that was merged."""
    if setting.base is None:
        return {}
    return {"frozen base": bytes_on_device(setting.base)}
