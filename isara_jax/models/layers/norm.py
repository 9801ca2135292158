"""RMSNorm and LayerNorm, computed in fp32.

Shape letters, here and everywhere: B batch, T query positions, S cached positions,
D width, N query heads, K KV heads, H head size, F feed-forward, V vocabulary, L layers.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
