"""What decoder layers are made of, beside attention.

Shape letters, here and everywhere: B batch, T query positions, S cached positions,
D width, N query heads, K KV heads, H head size, F feed-forward, V vocabulary, L layers.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.models.layers.rope import RopeScaling, rotary_frequencies


def rms_norm(
    x: Float[Array, "B T D"], scale: Float[Array, " D"], *, epsilon: float
) -> Float[Array, "B T D"]:
    """Computes x / sqrt(mean(x^2) + epsilon) * scale, the mean in fp32."""
    wide = x.astype(jnp.float32)
    power = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(power + epsilon)).astype(x.dtype) * scale


def layer_norm(
    x: Float[Array, "B T D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"],
    *,
    epsilon: float,
) -> Float[Array, "B T D"]:
    """Computes (x - mean) / sqrt(variance + epsilon) * scale + bias, inside in fp32."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + epsilon)
    return (normed * scale + bias).astype(x.dtype)


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
