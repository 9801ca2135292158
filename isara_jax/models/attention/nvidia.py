"""Attention on NVIDIA: cuDNN's flash attention, and the Triton kernels that JAX ships.

A step of decoding reads a row's own keys by a split-key flash kernel that starts and
ends where the row does. What all rows share it reads once, in plain matrix products;
the two are joined by their log-sum-exps.

A chunk of a prompt runs on cuDNN, which takes any mask as a bias. Whole rows do not:
cuDNN's causal form knows no segments, has once ignored them silently, and would have to
compute a gradient of the bias. They run on the Triton kernel, which has segments.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import (
    attention as triton_attention,
    decode_attention,
)
from jaxtyping import Array, Bool, Float, Int

NARROW = (jnp.bfloat16, jnp.float16)
# Positions that a program of the decoding kernel reads at once, and before another
# program takes over. The split follows from the room alone, never from the batch, so
# that a row's bits do not depend on what runs beside it.
KEY_BLOCK = 64
KEY_SPLIT = 256
# The room of a slot is a multiple of this.
ROOM_STEP = 128
ROW_BLOCK = 64


def supports_kv_cache(head_size: int, dtype: jnp.dtype) -> bool:
    """Tells whether the kernels of decoding and prefill take such heads.

    Triton's tiles are powers of two, and fp32 would be rounded to tf32 inside.
    """
    return dtype in NARROW and head_size in (16, 32, 64, 128)


def padded_kv_len(positions: int) -> int:
    """Rounds the positions of a row's cache up to what the decoding kernel splits."""
    return -(-positions // ROOM_STEP) * ROOM_STEP


def supports_rows(q: Float[Array, "B T N H"], *, window: int | None) -> bool:
    """Tells whether the kernel of whole rows takes them; it knows no window."""
    return window is None and supports_kv_cache(q.shape[-1], q.dtype)


def flash_decode_attention(
    q: Float[Array, "B N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    *,
    first: Int[Array, " B"],
    end: Int[Array, " B"],
) -> tuple[Float[Array, "B N H"], Float[Array, "B N"]]:
    """Attends from a query a row to its keys first .. end - 1, of which there is one.

    S is a multiple of `ROOM_STEP`. Returns fp32, and the log-sum-exps of the scores.
    """
    room = k.shape[2]
    mixed, (total, highest) = decode_attention.gqa(
        q,
        # The kernel swaps them back.
        k.swapaxes(1, 2),
        v.swapaxes(1, 2),
        start_idx=first,
        kv_seq_len=end,
        block_k=KEY_BLOCK,
        k_splits=room // (KEY_SPLIT if room % KEY_SPLIT == 0 else ROOM_STEP),
        return_residuals=True,
    )
    return mixed.astype(jnp.float32), highest + jnp.log(total)


def flash_prefill_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    *,
    visible: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Attends from a chunk of queries to the keys that each of them sees."""
    return jax.nn.dot_product_attention(
        q,
        k.swapaxes(1, 2),
        v.swapaxes(1, 2),
        mask=visible[:, None],
        implementation="cudnn",
    )


def causal_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K T H"],
    v: Float[Array, "B K T H"],
    *,
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attends to the positions up to one's own that have one's own segment id."""
    length, heads, size = q.shape[1:]
    pad = ((0, 0), (0, -length % ROW_BLOCK))
    # A KV head for every query head: the kernel shares none.
    k, v = (
        jnp.repeat(array, heads // array.shape[1], axis=1).swapaxes(1, 2)
        for array in (k, v)
    )
    q, k, v = (jnp.pad(array, (*pad, (0, 0), (0, 0))) for array in (q, k, v))
    mixed = triton_attention.mha(
        q,
        k,
        v,
        jnp.pad(segments, pad, constant_values=-1),
        sm_scale=size**-0.5,
        causal=True,
        block_sizes=triton_attention.BlockSizes(
            block_q=ROW_BLOCK,
            block_k=ROW_BLOCK,
            block_q_dkv=ROW_BLOCK // 2,
            block_kv_dkv=ROW_BLOCK // 2,
            block_q_dq=ROW_BLOCK // 2,
            block_kv_dq=ROW_BLOCK // 2,
        ),
    )
    return mixed[:, :length]
