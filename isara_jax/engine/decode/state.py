"""The state of the decode batch between two steps, and how a prompt enters a slot."""

from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from isara_jax.engine.decode.batch import DecodeBatch
from isara_jax.engine.kv_cache import (
    DenseCache,
    KVCache,
    LayerBlocks,
    constrain_cache,
    empty_kv_cache,
)
from isara_jax.engine.sampling import TokenBuffer
from isara_jax.models.attention import attention_backend
from isara_jax.runtime import Mesh, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DecodeState(DecodeBatch):
    """A decode batch in which each slot samples one continuation.

    Attributes:
      texts: prompts and continuations.
      log_probabilities: those of the continuation's tokens.
    """

    texts: TokenBuffer
    logits: Float[Array, "B V"]
    log_probabilities: Float[Array, "B N"]

    @property
    def generated(self) -> Int[Array, " B"]:
        return self.texts.generated

    @property
    def token_log_probabilities(self) -> Float[Array, "B N"]:
        return self.log_probabilities

    @property
    def columns(self) -> int:
        """The token ids that a slot has room for."""
        return self.texts.token_ids.shape[1]

    def with_prompt(
        self,
        kv_row: KVCache,
        logits: Float[Array, " V"],
        *,
        slot: Int[Array, ""],
        token_ids: Int[Array, " S"],
        length: Int[Array, ""],
        limit: Int[Array, ""],
        key: Key[Array, ""],
    ) -> "DecodeState":
        """Puts a prompt into a slot, with no token sampled yet."""
        texts = self.texts
        seen = jnp.zeros(texts.seen.shape[1], bool)
        seen = seen.at[token_ids].max(jnp.arange(token_ids.shape[0]) < length)
        return DecodeState(
            cache=self.cache.insert(kv_row, row=slot, length=length),
            texts=TokenBuffer(
                token_ids=texts.token_ids.at[slot].set(token_ids),
                mask=texts.mask,
                lengths=texts.lengths.at[slot].set(length),
                generated=texts.generated.at[slot].set(0),
                seen=texts.seen.at[slot].set(seen),
            ),
            logits=self.logits.at[slot].set(logits),
            log_probabilities=self.log_probabilities,
            limits=self.limits.at[slot].set(limit),
            keys=self.keys.at[slot].set(key),
            done=self.done.at[slot].set(False),
        )

    def take(self, slots: Int[Array, " b"]) -> "DecodeState":
        parts = {
            name: jax.tree.map(lambda array: array[slots], part)
            for name, part in vars(self).items()
            if name != "cache"
        }
        cache = cast(DenseCache, self.cache).take_rows(slots)
        return DecodeState(cache=cache, **parts)

    def constrain(self, mesh: Mesh) -> "DecodeState":
        def split(array: Array, *words: str) -> Array:
            return constrain(array, words, mesh)

        texts = self.texts
        return replace(
            self,
            cache=constrain_cache(self.cache, mesh),
            texts=TokenBuffer(
                token_ids=split(texts.token_ids, "batch", "time"),
                mask=split(texts.mask, "batch", "time"),
                lengths=split(texts.lengths, "batch"),
                generated=split(texts.generated, "batch"),
                seen=split(texts.seen, "batch", "vocab"),
            ),
            logits=split(self.logits, "batch", "vocab"),
            log_probabilities=split(self.log_probabilities, "batch", "time"),
            limits=split(self.limits, "batch"),
            done=split(self.done, "batch"),
        )


@partial(
    jax.jit, static_argnames=("rows", "max_len", "max_shared_len", "new_tokens", "mesh")
)
def empty_state(
    layer_blocks: LayerBlocks,
    *,
    rows: int,
    max_len: int,
    max_shared_len: int,
    new_tokens: int,
    mesh: Mesh,
) -> DecodeState:
    """Returns a decode batch of empty slots."""
    vocabulary = layer_blocks.model.config.vocab_size
    zeros, columns = jnp.zeros(rows, jnp.int32), max_shared_len + max_len
    texts = TokenBuffer(
        token_ids=jnp.zeros((rows, columns), jnp.int32),
        mask=jnp.ones((rows, columns), jnp.int32),
        lengths=zeros,
        generated=zeros,
        seen=jnp.zeros((rows, vocabulary), bool),
    )
    state = DecodeState(
        cache=empty_kv_cache(
            layer_blocks,
            rows=rows,
            max_len=max_len,
            max_shared_len=max_shared_len,
            backend=attention_backend(mesh),
        ),
        texts=texts,
        logits=jnp.zeros((rows, vocabulary), jnp.float32),
        log_probabilities=jnp.zeros((rows, new_tokens), jnp.float32),
        limits=zeros,
        keys=jnp.broadcast_to(jax.random.key(0), (rows,)),
        done=jnp.ones(rows, bool),
    )
    return state.constrain(mesh)
