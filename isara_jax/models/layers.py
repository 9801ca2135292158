"""What decoder layers are made of, and the one attention function.

Shape letters, here and everywhere: B batch, T query positions, S cached positions,
D width, N query heads, K KV heads, H head size, F feed-forward, V vocabulary, L layers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Queries are taken in chunks of this many, so that a chunk multiplies only the keys
# before its end: half of the square is never computed.
QUERY_CHUNK = 128


def rms_norm(
    x: Float[Array, "B T D"], scale: Float[Array, " D"], *, epsilon: float
) -> Float[Array, "B T D"]:
    """Computes x / sqrt(mean(x^2) + epsilon) * scale, the mean in fp32."""
    wide = x.astype(jnp.float32)
    power = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(power + epsilon)).astype(x.dtype) * scale


def rotary_angles(
    positions: Int[Array, "B T"], *, head_size: int, base: float
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Returns the cosines and sines of position * base^(-2i / head_size)."""
    # On the host, in fp32, as the reference does: a compiled power differs by platform,
    # and thousands of positions multiply the difference.
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / head_size
    frequencies = 1 / np.float32(base) ** exponents
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


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    *,
    visible: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Attends from every query to its visible keys; N / K query heads share a KV head.

    A query must see at least one key.
    """
    batch, length, heads, size = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    # Matrix form, KV heads ahead of positions: on CPU the fastest of the forms
    # measured, and the layout that the flash kernels read.
    rows = q.reshape(batch, length, kv_heads, group, size).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, kv_heads, group * length, size) * (size**-0.5)
    scores = jnp.matmul(rows, k.swapaxes(2, 3), preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, group, length, -1)
    hidden = jnp.finfo(jnp.float32).min
    weights = jax.nn.softmax(
        jnp.where(visible[:, None, None], scores, hidden), axis=-1
    ).astype(v.dtype)
    mixed = jnp.matmul(weights.reshape(batch, kv_heads, group * length, -1), v)
    mixed = mixed.reshape(batch, kv_heads, group, length, size)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


def causal_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attends to the positions up to one's own that have one's own segment id."""
    length = q.shape[1]
    chunks = []
    for start in range(0, length, QUERY_CHUNK):
        end = min(start + QUERY_CHUNK, length)
        earlier = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None, :]
        same = segments[:, start:end, None] == segments[:, None, :end]
        chunks.append(
            attention(
                q[:, start:end], k[:, :, :end], v[:, :, :end], visible=same & earlier
            )
        )
    return jnp.concatenate(chunks, axis=1)
