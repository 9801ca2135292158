"""Attention on NVIDIA: cuDNN's flash attention, and the Triton kernels that JAX ships.

A decode step reads a row's own keys by a split-key flash kernel, from the row's first
to its last. Keys that all rows share it reads once, by dense matrix products. The two
results are merged by their log-sum-exps.

A prefill chunk runs on cuDNN, which takes any mask as a bias. Training rows run on the
Triton kernel, which takes segment ids: cuDNN's causal form takes none, has ignored them
silently in the past, and would compute a gradient of the bias.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import (
    attention as triton_attention,
    decode_attention,
)
from jaxtyping import Array, Bool, Float, Int

HALF_PRECISION = (jnp.bfloat16, jnp.float16)
# Positions that a program of the decoding kernel reads at once, and in all. The split
# depends on the cache's length alone, never on the batch, so that a row's bits do not
# depend on the rows beside it.
KEY_BLOCK = 64
KEY_SPLIT = 256
# The length of a cache is a multiple of this.
KV_LEN_STEP = 128
ROW_BLOCK = 64


def supports_kv_cache(head_size: int, dtype: jnp.dtype) -> bool:
    """Tells whether the kernels of decoding and prefill support such heads.

    Triton's tiles are powers of two, and fp32 would be rounded to tf32 inside.
    """
    return dtype in HALF_PRECISION and head_size in (16, 32, 64, 128)


def padded_kv_len(positions: int) -> int:
    """Rounds the positions of a row's cache up to what the decoding kernel splits."""
    return -(-positions // KV_LEN_STEP) * KV_LEN_STEP


def supports_causal(q: Float[Array, "B T N H"], *, window: int | None) -> bool:
    """Tells whether the training kernel supports the rows; it has no window."""
    return window is None and supports_kv_cache(q.shape[-1], q.dtype)


def flash_decode_attention(
    q: Float[Array, "B N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    *,
    first: Int[Array, " B"],
    end: Int[Array, " B"],
) -> tuple[Float[Array, "B N H"], Float[Array, "B N"]]:
    """Attends from one query of each row to its keys `first` to `end` - 1.

    A row has at least one key. S is a multiple of `KV_LEN_STEP`. Returns the result in
    fp32, and the log-sum-exps of the attention logits.
    """
    kv_len = k.shape[2]
    mixed, (total, highest) = decode_attention.gqa(
        q,
        # The kernel swaps them back.
        k.swapaxes(1, 2),
        v.swapaxes(1, 2),
        start_idx=first,
        kv_seq_len=end,
        block_k=KEY_BLOCK,
        k_splits=kv_len // (KEY_SPLIT if kv_len % KEY_SPLIT == 0 else KV_LEN_STEP),
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
    """Attends from a chunk of queries to the keys visible to each of them."""
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
    """Attends from each position to those up to it that have its segment id."""
    length, heads, size = q.shape[1:]
    pad = ((0, 0), (0, -length % ROW_BLOCK))
    # The kernel has no grouped-query attention: one KV head for each query head.
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
