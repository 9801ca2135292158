"""Attention in jax.numpy, which XLA compiles on every platform.

It is the reference for the kernels. The visible keys are a mask here; the kernels take
lengths instead.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Queries are taken in chunks of this many, so that a chunk multiplies only the keys
# before its end: half of the square is never computed.
QUERY_CHUNK = 128
# Blockwise attention reads so many keys at once.
KEY_BLOCK = 256


@dataclass(frozen=True)
class KVSegment:
    """A segment of the KV cache, with the mask of the keys that each query sees.

    `k` and `v` are [B, K, S, H], or [1, K, S, H] for keys that all rows share.
    `visible` is [B, T, S].
    """

    k: Array
    v: Array
    visible: Array


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
    return segmented_attention(q, [KVSegment(k, v, visible)])


def segmented_attention(
    q: Float[Array, "B T N H"], kv_segments: Sequence[KVSegment]
) -> Float[Array, "B T N H"]:
    """Attends to the keys of several segments, by one softmax over all of them.

    A query must see at least one key of some segment.
    """
    length, kv_heads = q.shape[1], kv_segments[0].k.shape[1]
    rows = _by_kv_head(q, kv_heads)
    logits = [_logits(rows, kv_segment, length=length) for kv_segment in kv_segments]
    parts = zip(_joint_softmax(logits), kv_segments, strict=True)
    mixed = functools.reduce(
        jnp.add, [_mixed(weights, kv_segment) for weights, kv_segment in parts]
    )
    return _by_position(mixed, length)


def blockwise_attention(
    q: Float[Array, "1 T N H"],
    keys: Float[Array, "1 K H S"],
    values: Float[Array, "1 K S H"],
    *,
    start: Int[Array, ""],
    window: int | None,
) -> Float[Array, "1 T N H"]:
    """Attends from T positions, the first of them `start`, to those up to each.

    Reads only the blocks of keys up to the last query, and with a window those from its
    first position, so one program serves texts of any length. S is a multiple of
    `KEY_BLOCK`. The softmax is computed online (Milakov and Gimelshein 2018).
    """
    _, length, heads, size = q.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    rows = q.reshape(length, kv_heads, group, size).transpose(1, 2, 0, 3)
    rows = rows.reshape(kv_heads, group * length, size) * (size**-0.5)
    positions = jnp.tile(start + jnp.arange(length), group)[:, None]

    def read(number: Array, so_far: tuple) -> tuple:
        highest, total, mixed = so_far
        begin = number * KEY_BLOCK
        near_keys = jax.lax.dynamic_slice_in_dim(keys[0], begin, KEY_BLOCK, 2)
        near_values = jax.lax.dynamic_slice_in_dim(values[0], begin, KEY_BLOCK, 1)
        columns = begin + jnp.arange(KEY_BLOCK)
        visible = columns <= positions
        if window:
            visible &= columns > positions - window
        logits = jnp.matmul(rows, near_keys, preferred_element_type=jnp.float32)
        logits = jnp.where(visible, logits, jnp.finfo(jnp.float32).min)
        higher = jnp.maximum(highest, jnp.max(logits, axis=-1, keepdims=True))
        weights, kept = jnp.exp(logits - higher), jnp.exp(highest - higher)
        total = total * kept + jnp.sum(weights, axis=-1, keepdims=True)
        block = jnp.matmul(
            weights.astype(values.dtype),
            near_values,
            preferred_element_type=jnp.float32,
        )
        return higher, total, mixed * kept + block

    column = (kv_heads, group * length, 1)
    nothing = (
        jnp.full(column, jnp.finfo(jnp.float32).min),
        jnp.zeros(column, jnp.float32),
        jnp.zeros((*column[:2], size), jnp.float32),
    )
    first = jnp.maximum(start - window + 1, 0) // KEY_BLOCK if window else 0
    last = (start + length - 1) // KEY_BLOCK
    _, total, mixed = jax.lax.fori_loop(first, last + 1, read, nothing)
    mixed = (mixed / total).astype(q.dtype).reshape(kv_heads, group, length, size)
    return mixed.transpose(2, 0, 1, 3).reshape(1, length, heads, size)


def attention_with_lse(
    q: Float[Array, "B T N H"], kv_segment: KVSegment
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """Attends to one segment; returns the log-sum-exps of the logits as well.

    Those of a query that sees no key are so low that `merge_segments` drops its part.
    """
    length, kv_heads = q.shape[1], kv_segment.k.shape[1]
    logits = _logits(_by_kv_head(q, kv_heads), kv_segment, length=length)
    highest = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = _mixed(weights / total, kv_segment)
    sums = _by_position(highest + jnp.log(total), length)
    return _by_position(mixed, length), sums[..., 0]


def merge_segments(
    parts: Sequence[tuple[Float[Array, "*q H"], Float[Array, "*q"]]],
) -> Float[Array, "*q H"]:
    """Merges the results of several segments by the log-sum-exps of their logits."""
    sums = jnp.stack([part.astype(jnp.float32) for _, part in parts])
    shares = jax.nn.softmax(sums, axis=0)
    mixed = jnp.stack([part.astype(jnp.float32) for part, _ in parts])
    return jnp.sum(shares[..., None] * mixed, axis=0).astype(parts[0][0].dtype)


def _by_kv_head(q: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K M H"]:
    """Scales the queries and groups them by KV head, M = N / K * T of each.

    KV heads come before positions: on CPU the fastest of the layouts measured, and the
    one that the flash kernels read.
    """
    batch, length, heads, size = q.shape
    group = heads // kv_heads
    rows = q.reshape(batch, length, kv_heads, group, size).transpose(0, 2, 3, 1, 4)
    return rows.reshape(batch, kv_heads, group * length, size) * (size**-0.5)


def _by_position(
    mixed: Float[Array, "B K M H"], length: int
) -> Float[Array, "B T N H"]:
    batch, kv_heads, count, size = mixed.shape
    mixed = mixed.reshape(batch, kv_heads, count // length, length, size)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, -1, size)


def _joint_softmax(logits: Sequence[Array]) -> list[Array]:
    if len(logits) == 1:
        return [jax.nn.softmax(logits[0], axis=-1)]
    highest = [jnp.max(part, axis=-1, keepdims=True) for part in logits]
    top = functools.reduce(jnp.maximum, highest)
    weights = [jnp.exp(part - top) for part in logits]
    sums = [jnp.sum(part, axis=-1, keepdims=True) for part in weights]
    total = functools.reduce(jnp.add, sums)
    return [part / total for part in weights]


def _logits(
    rows: Float[Array, "B K M H"], kv_segment: KVSegment, *, length: int
) -> Float[Array, "B K M S"]:
    batch, kv_heads, count, _ = rows.shape
    keys = kv_segment.k.swapaxes(2, 3)
    if kv_segment.k.shape[0] != batch:
        rows = rows.swapaxes(0, 1).reshape(1, kv_heads, batch * count, -1)
    logits = jnp.matmul(rows, keys, preferred_element_type=jnp.float32)
    if kv_segment.k.shape[0] != batch:
        logits = logits.reshape(kv_heads, batch, count, -1).swapaxes(0, 1)
    logits = logits.reshape(batch, kv_heads, count // length, length, -1)
    hidden = jnp.finfo(jnp.float32).min
    logits = jnp.where(kv_segment.visible[:, None, None], logits, hidden)
    return logits.reshape(batch, kv_heads, count, -1)


def _mixed(
    weights: Float[Array, "B K M S"], kv_segment: KVSegment
) -> Float[Array, "B K M H"]:
    batch, kv_heads, count, _ = weights.shape
    weights = weights.astype(kv_segment.v.dtype)
    if kv_segment.v.shape[0] == batch:
        return jnp.matmul(weights, kv_segment.v)
    weights = weights.swapaxes(0, 1).reshape(1, kv_heads, batch * count, -1)
    mixed = jnp.matmul(weights, kv_segment.v)
    return mixed.reshape(kv_heads, batch, count, -1).swapaxes(0, 1)


def xla_causal_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    segments: Int[Array, "B T"],
    window: int | None = None,
) -> Float[Array, "B T N H"]:
    """Attends from each position to those up to it that have its segment id.

    With a window, only to the last so many of them, itself included.
    """
    length = q.shape[1]
    chunks = []
    for start in range(0, length, QUERY_CHUNK):
        end = min(start + QUERY_CHUNK, length)
        back = jnp.arange(start, end)[:, None] - jnp.arange(end)[None, :]
        near = (back >= 0) & (back < (window or end))
        same = segments[:, start:end, None] == segments[:, None, :end]
        chunks.append(
            attention(
                q[:, start:end], k[:, :, :end], v[:, :, :end], visible=same & near
            )
        )
    return jnp.concatenate(chunks, axis=1)
