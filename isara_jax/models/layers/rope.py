"""The frequencies of rotary positions, plain or lowered for a longer context.

Computed on the host, in fp32, as the reference does: a compiled power differs by
platform, and thousands of positions multiply the difference.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are lowered for a longer context.

    `linear` divides all by `factor`. `llama3` divides those of wavelengths above
    original_context / low, keeps those below original_context / high, and blends
    between; the last three fields are its own.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low: float = 1.0
    high: float = 4.0
    original_context: int = 8192


def rotary_frequencies(
    head_size: int, *, base: float, scaling: RopeScaling | None
) -> np.ndarray:
    """Returns the angle that a position adds to each pair: base^(-2i / head_size)."""
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / head_size
    plain = 1 / np.float32(base) ** exponents
    if scaling is None:
        return plain
    lowered = plain / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return lowered
    turns = scaling.original_context * plain / (2 * math.pi)
    share = (turns - scaling.low) / (scaling.high - scaling.low)
    kept = np.clip(share, 0.0, 1.0).astype(np.float32)
    return (1 - kept) * lowered + kept * plain
