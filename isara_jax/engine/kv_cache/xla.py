"""The KV cache for XLA's attention: keys with their positions last.

On CPU the product of a query with them then reads memory in order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from isara_jax.engine.kv_cache.dense import DenseKVCache
from isara_jax.models import Attend
from isara_jax.models.attention import (
    KVSegment,
    blockwise_attention,
    segmented_attention,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class XlaKVCache(DenseKVCache):
    """Keys [l, B, K, H, S] and values [l, B, K, S, H]."""

    KEY_AXES = ("layers", "batch", "kv_heads", "head_dim", "time")
    VALUE_AXES = ("layers", "batch", "kv_heads", "time", "head_dim")

    def decode_attention(
        self, *, window: int | None
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to it."""
        rows = jnp.arange(self.lengths.shape[0])
        positions = (self.shared_len + self.lengths)[:, None]
        own = jnp.arange(self.max_len)
        own_mask = own <= self.lengths[:, None]
        shared = jnp.arange(self.max_shared_len)
        shared_mask = jnp.broadcast_to(
            shared < self.shared_len, (len(rows), shared.size)
        )
        if window:
            own_mask &= own > self.lengths[:, None] - window
            shared_mask &= shared > positions - window

        def attend(block: tuple[Array, ...], layer: Array) -> Attend:
            keys, values, shared_keys, shared_values = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                at = self.lengths
                new_keys = keys.at[layer, rows, :, :, at].set(k[:, 0])
                new_values = values.at[layer, rows, :, at].set(v[:, 0])
                kv_segments = [
                    KVSegment(
                        new_keys[layer].swapaxes(2, 3),
                        new_values[layer],
                        own_mask[:, None],
                    )
                ]
                if shared.size:
                    kv_segments.append(
                        KVSegment(
                            shared_keys[layer].swapaxes(2, 3),
                            shared_values[layer],
                            shared_mask[:, None],
                        )
                    )
                mixed = segmented_attention(q, kv_segments)
                return mixed, (new_keys, new_values, shared_keys, shared_values)

            return attended

        return attend

    def kv_len(self, end: int) -> int:
        """Returns how many positions a chunk up to `end` reads, one program each."""
        del end
        return self.max_len

    def prefill_attention(
        self,
        *,
        start: Int[Array, ""],
        kv_len: int,
        window: int | None,
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes T tokens from `start` on; each attends to the positions up to it."""
        del kv_len

        def attend(block: tuple[Array, ...], layer: Array) -> Attend:
            keys, values, *shared = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                new_keys = jax.lax.dynamic_update_slice(
                    keys, k.transpose(0, 2, 3, 1)[None], (layer, 0, 0, 0, start)
                )
                new_values = jax.lax.dynamic_update_slice(
                    values, v.swapaxes(1, 2)[None], (layer, 0, 0, start, 0)
                )
                mixed = blockwise_attention(
                    q,
                    new_keys[layer],
                    new_values[layer],
                    start=start,
                    window=window,
                )
                return mixed, (new_keys, new_values, *shared)

            return attended

        return attend
