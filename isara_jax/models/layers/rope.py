"""Rotary positions (RoPE, Su et al. 2021), plain or scaled for a longer context.

Frequencies are computed on the host in fp32, as in transformers: a compiled power
differs by platform, and thousands of positions multiply the difference.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


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


def rotary_angles(
    positions: Int[Array, "B T"],
    *,
    head_size: int,
    base: float,
    scaling: RopeScaling | None = None,
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Returns the cosines and sines of position * frequency."""
    frequencies = rotary_frequencies(head_size, base=base, scaling=scaling)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B T heads H"],
    cosine: Float[Array, "B T half"],
    sine: Float[Array, "B T half"],
) -> Float[Array, "B T heads H"]:
    """Turns the pairs (x[i], x[i + H/2]) by the angle of their position."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = cosine[:, :, None, :], sine[:, :, None, :]
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
