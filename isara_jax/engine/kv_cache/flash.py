"""Slots for the kernels of NVIDIA: keys lie as values do, position by position."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from isara_jax.engine.kv_cache.dense import DenseKVCache
from isara_jax.models import Attend
from isara_jax.models.attention import (
    KVSegment,
    attention_part,
    flash_decode_attention,
    flash_prefill_attention,
    merge_segments,
    padded_kv_len,
)

# The fewest positions that a chunk of a prompt attends to, masked or not.
LEAST_REACH = 1024


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FlashKVCache(DenseKVCache):
    """Keys and values [l, B, K, S, H]."""

    KEY_WORDS = VALUE_WORDS = ("layers", "batch", "kv_heads", "time", "head_dim")

    @staticmethod
    def room_for(capacity: int) -> int:
        """Rounds up to what the kernel splits."""
        return padded_kv_len(capacity)

    def decode_attention(
        self, *, window: int | None
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes a token at every row's end, and attends to the row up to there."""
        rows = jnp.arange(self.lengths.shape[0])
        end = jnp.minimum(self.lengths + 1, self.room)
        first = jnp.zeros_like(end)
        early = jnp.arange(self.shared_room)
        early_visible = jnp.broadcast_to(early < self.shared, (len(rows), early.size))
        if window:
            first = jnp.maximum(self.lengths + 1 - window, 0)
            oldest = self.shared + self.lengths + 1 - window
            early_visible &= early >= oldest[:, None]

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, shared_keys, shared_values = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                longer_keys = keys.at[number, rows, :, self.lengths].set(k[:, 0])
                longer_values = values.at[number, rows, :, self.lengths].set(v[:, 0])
                parts = [
                    self._own_attention(
                        q, longer_keys[number], longer_values[number], first, end
                    )
                ]
                if early.size:
                    kv_segment = KVSegment(
                        shared_keys[number],
                        shared_values[number],
                        early_visible[:, None],
                    )
                    parts.append(attention_part(q, kv_segment))
                carried = (longer_keys, longer_values, shared_keys, shared_values)
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

        heads = self.backend.heads_word(k.shape[1])
        query, row = ("batch", heads, "head_dim"), ("batch",)
        keys = ("batch", heads, "time", "head_dim")
        shape = (q.shape[0], *q.shape[2:])
        mixed, sums = self.backend.run(
            attended,
            *(q[:, 0], k, v, first, end),
            words=(query, keys, keys, row, row),
            outputs=((query, shape), (query[:2], shape[:2])),
        )
        return mixed[:, None], sums[:, None]

    def kv_len(self, end: int) -> int:
        """Returns up to where a chunk that ends there reads; each is compiled for."""
        kv_len = LEAST_REACH
        while kv_len < end:
            kv_len *= 2
        return min(kv_len, self.room)

    def prefill_attention(
        self,
        *,
        start: Int[Array, ""],
        kv_len: int,
        window: int | None,
    ) -> Callable[[tuple[Array, ...], Array], Attend]:
        """Writes T tokens from `start` on, and attends to what is before `kv_len`."""
        columns = jnp.arange(kv_len)

        def attend(block: tuple[Array, ...], number: Array) -> Attend:
            keys, values, *shared = block

            def attended(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
                positions = start + jnp.arange(q.shape[1])[None, :, None]
                visible = columns <= positions
                if window:
                    visible &= columns > positions - window
                at = (number, 0, 0, start, 0)
                longer = [
                    jax.lax.dynamic_update_slice(array, new.swapaxes(1, 2)[None], at)
                    for array, new in ((keys, k), (values, v))
                ]
                near_keys, near_values = (
                    array[number][:, :, :kv_len] for array in longer
                )
                mixed = self._chunk_attention(q, near_keys, near_values, visible)
                return mixed, (*longer, *shared)

            return attended

        return attend

    def _chunk_attention(
        self,
        q: Float[Array, "B T N H"],
        k: Float[Array, "B K S H"],
        v: Float[Array, "B K S H"],
        visible: Array,
    ) -> Float[Array, "B T N H"]:
        def attended(q: Array, k: Array, v: Array, visible: Array) -> tuple[Array]:
            return (flash_prefill_attention(q, k, v, visible=visible),)

        heads = self.backend.heads_word(k.shape[1])
        query = ("batch", "time", heads, "head_dim")
        keys = ("batch", heads, "time", "head_dim")
        (mixed,) = self.backend.run(
            attended,
            *(q, k, v, visible),
            words=(query, keys, keys, ("batch", "time", "time")),
            outputs=((query, q.shape),),
        )
        return mixed
