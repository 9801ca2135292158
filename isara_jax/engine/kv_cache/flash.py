"""The KV cache for the kernels of NVIDIA: keys lie as values do, by position."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache.dense import DenseKVCache
from isara_jax.models import Attend
from isara_jax.models.attention import (
    KVSegment,
    attention_with_lse,
    flash_decode_attention,
    flash_prefill_attention,
    merge_segments,
    padded_kv_len,
)

# The fewest positions that a chunk of a prompt reads, masked or not.
MIN_KV_LEN = 1024


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FlashKVCache(DenseKVCache):
    """Keys and values [l, B, K, S, H]."""

    KEY_AXES = VALUE_AXES = ("layers", "batch", "kv_heads", "time", "head_dim")

    @staticmethod
    def padded_len(max_len: int) -> int:
        """Rounds up to what the kernel splits."""
        return padded_kv_len(max_len)

    def decode_attention(
        self, *, window: int | None
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to it."""
        rows = jnp.arange(self.lengths.shape[0])
        end = jnp.minimum(self.lengths + 1, self.max_len)
        first = jnp.zeros_like(end)
        shared = jnp.arange(self.max_shared_len)
        shared_mask = jnp.broadcast_to(
            shared < self.shared_len, (len(rows), shared.size)
        )
        if window:
            first = jnp.maximum(self.lengths + 1 - window, 0)
            oldest = self.shared_len + self.lengths + 1 - window
            shared_mask &= shared >= oldest[:, None]

        def attend(block: tuple[Array, ...], layer: Array) -> Attend:
            keys, values, shared_keys, shared_values = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                new_keys = keys.at[layer, rows, :, self.lengths].set(k[:, 0])
                new_values = values.at[layer, rows, :, self.lengths].set(v[:, 0])
                parts = [
                    self._own_attention(
                        q, new_keys[layer], new_values[layer], first, end
                    )
                ]
                if shared.size:
                    kv_segment = KVSegment(
                        shared_keys[layer],
                        shared_values[layer],
                        shared_mask[:, None],
                    )
                    parts.append(attention_with_lse(q, kv_segment))
                carried = (new_keys, new_values, shared_keys, shared_values)
                return merge_segments(parts).astype(q.dtype), carried

            return attended

        return attend

    def _own_attention(
        self,
        q: Float[Array, "B 1 N H"],
        k: Float[Array, "B K S H"],
        v: Float[Array, "B K S H"],
        first: Int[Array, " B"],
        end: Int[Array, " B"],
    ) -> tuple[Float[Array, "B 1 N H"], Float[Array, "B 1 N"]]:
        def attended(*arrays: Array) -> tuple[Array, Array]:
            q, k, v, first, end = arrays
            return flash_decode_attention(q, k, v, first=first, end=end)

        heads = self.backend.heads_axis(k.shape[1])
        query, row = ("batch", heads, "head_dim"), ("batch",)
        keys = ("batch", heads, "time", "head_dim")
        shape = (q.shape[0], *q.shape[2:])
        mixed, sums = self.backend.run(
            attended,
            *(q[:, 0], k, v, first, end),
            axes=(query, keys, keys, row, row),
            outputs=((query, shape), (query[:2], shape[:2])),
        )
        return mixed[:, None], sums[:, None]

    def kv_len(self, end: int) -> int:
        """Returns how many positions a chunk up to `end` reads, one program each."""
        kv_len = MIN_KV_LEN
        while kv_len < end:
            kv_len *= 2
        return min(kv_len, self.max_len)

    def prefill_attention(
        self,
        *,
        start: Int[Array, ""],
        kv_len: int,
        window: int | None,
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes T tokens from `start` on, and attends to the first `kv_len`."""
        columns = jnp.arange(kv_len)

        def attend(block: tuple[Array, ...], layer: Array) -> Attend:
            keys, values, *shared = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                positions = start + jnp.arange(q.shape[1])[None, :, None]
                mask = columns <= positions
                if window:
                    mask &= columns > positions - window
                at = (layer, 0, 0, start, 0)
                written = [
                    jax.lax.dynamic_update_slice(array, new.swapaxes(1, 2)[None], at)
                    for array, new in ((keys, k), (values, v))
                ]
                near_keys, near_values = (
                    array[layer][:, :, :kv_len] for array in written
                )
                mixed = self._chunk_attention(q, near_keys, near_values, mask)
                return mixed, (*written, *shared)

            return attended

        return attend

    def _chunk_attention(
        self,
        q: Float[Array, "B T N H"],
        k: Float[Array, "B K S H"],
        v: Float[Array, "B K S H"],
        mask: Array,
    ) -> Float[Array, "B T N H"]:
        def attended(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array]:
            return (flash_prefill_attention(q, k, v, visible=mask),)

        heads = self.backend.heads_axis(k.shape[1])
        query = ("batch", "time", heads, "head_dim")
        keys = ("batch", heads, "time", "head_dim")
        (mixed,) = self.backend.run(
            attended,
            *(q, k, v, mask),
            axes=(query, keys, keys, ("batch", "time", "time")),
            outputs=((query, q.shape),),
        )
        return mixed
