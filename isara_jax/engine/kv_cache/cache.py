"""The KV cache of a decode batch, and one decode step over it.

Every row has its own length, and its positions begin at 0: what a row computes depends
on nothing but the row. The prefix that all rows share is kept once.

The attention backend decides how the cache lies in memory: as XLA reads it, as the
kernels of NVIDIA do, or in the pages of the TPU's. The prefix cache is a KV cache of
one row.
"""

from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache.flash import FlashKVCache
from isara_jax.engine.kv_cache.layer_blocks import LayerBlocks, block_sizes
from isara_jax.engine.kv_cache.paged import PagedKVCache
from isara_jax.engine.kv_cache.xla import XlaKVCache
from isara_jax.models import run_blocks
from isara_jax.models.attention import (
    AttentionBackend,
    padded_head_size,
    padded_kv_heads,
    supports_kv_cache,
)
from isara_jax.runtime import Mesh, dtype_of

DenseCache = XlaKVCache | FlashKVCache
KVCache = DenseCache | PagedKVCache


def empty_kv_cache(
    layer_blocks: LayerBlocks,
    *,
    rows: int,
    max_len: int,
    max_shared_len: int,
    backend: AttentionBackend,
) -> KVCache:
    """Returns a cache with nothing written.

    A row holds up to `max_len` positions, behind `max_shared_len` that all rows share.
    """
    config, dtype = layer_blocks.model.config, dtype_of(layer_blocks.blocks)
    kind: type[KVCache] = XlaKVCache
    if backend.kind == "tpu":
        kind = PagedKVCache
    elif backend.kind == "nvidia" and supports_kv_cache(config.head_size, dtype):
        kind = FlashKVCache
    return kind.empty(
        config,
        layers=block_sizes(layer_blocks),
        rows=rows,
        max_len=max_len,
        max_shared_len=max_shared_len,
        dtype=dtype,
        backend=backend,
    )


def position_bytes(layer_blocks: LayerBlocks, backend: AttentionBackend) -> int:
    """Returns the bytes of one row's position in all layers, padding included."""
    config, dtype = layer_blocks.model.config, dtype_of(layer_blocks.blocks)
    heads, size = config.kv_heads, config.head_size
    if backend.kind == "tpu":
        heads = padded_kv_heads(heads, dtype)
        size = padded_head_size(size)
    return 2 * config.layers * heads * size * dtype.itemsize


def step(
    layer_blocks: LayerBlocks, tokens: Int[Array, " B"], cache: KVCache
) -> tuple[Float[Array, "B D"], KVCache]:
    """Runs one more token a row, and writes its keys and values at the row's end.

    A row that is full is left as it is. The caller advances `lengths`.
    """
    model = layer_blocks.model
    positions = (cache.shared_len + cache.lengths)[:, None]
    x, blocks = run_blocks(
        model,
        layer_blocks.blocks,
        model.embed(tokens[:, None], positions),
        positions=positions,
        caches=cache.blocks,
        attend=cache.decode_attention(window=model.config.window),
    )
    return x[:, 0], cache.with_blocks(blocks)


def constrain_cache(cache: KVCache, mesh: Mesh) -> KVCache:
    """Constrains the cache to the sharding that all programs keep."""
    return cache.constrain(mesh)
