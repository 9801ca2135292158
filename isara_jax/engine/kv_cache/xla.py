"""Slots as XLA attends to them: keys with their positions last.

On CPU their product with a query then reads them in order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from isara_jax.engine.kv_cache.dense import DenseKVCache
from isara_jax.models import Attend
from isara_jax.models.attention import KVSegment, attention_from, attention_over


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class XlaKVCache(DenseKVCache):
    """Keys [l, B, K, H, S] and values [l, B, K, S, H]."""

    KEY_WORDS = ("layers", "batch", "kv_heads", "head_dim", "time")
    VALUE_WORDS = ("layers", "batch", "kv_heads", "time", "head_dim")

    def decode_attention(
        self, *, window: int | None
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to there."""
        rows = jnp.arange(self.lengths.shape[0])
        positions = (self.shared + self.lengths)[:, None]
        own = jnp.arange(self.room)
        own_visible = own <= self.lengths[:, None]
        early = jnp.arange(self.shared_room)
        early_visible = jnp.broadcast_to(early < self.shared, (len(rows), early.size))
        if window:
            own_visible &= own > self.lengths[:, None] - window
            early_visible &= early > positions - window

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, shared_keys, shared_values = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                at = self.lengths
                longer_keys = keys.at[number, rows, :, :, at].set(k[:, 0])
                longer_values = values.at[number, rows, :, at].set(v[:, 0])
                kv_segments = [
                    KVSegment(
                        longer_keys[number].swapaxes(2, 3),
                        longer_values[number],
                        own_visible[:, None],
                    )
                ]
                if early.size:
                    kv_segments.append(
                        KVSegment(
                            shared_keys[number].swapaxes(2, 3),
                            shared_values[number],
                            early_visible[:, None],
                        )
                    )
                mixed = attention_over(q, kv_segments)
                return mixed, (longer_keys, longer_values, shared_keys, shared_values)

            return attended

        return attend

    def kv_len(self, end: int) -> int:
        """Returns up to where a chunk that ends there reads; each is compiled for."""
        del end
        return self.room

    def prefill_attention(
        self,
        *,
        start: Int[Array, ""],
        kv_len: int,
        window: int | None,
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes T tokens from `start` on, and attends to what is before them."""
        del kv_len

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, *shared = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                longer_keys = jax.lax.dynamic_update_slice(
                    keys, k.transpose(0, 2, 3, 1)[None], (number, 0, 0, 0, start)
                )
                longer_values = jax.lax.dynamic_update_slice(
                    values, v.swapaxes(1, 2)[None], (number, 0, 0, start, 0)
                )
                mixed = attention_from(
                    q,
                    longer_keys[number],
                    longer_values[number],
                    start=start,
                    window=window,
                )
                return mixed, (longer_keys, longer_values, *shared)

            return attended

        return attend
