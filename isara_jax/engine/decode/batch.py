"""What every decode batch is: slots of prompts, whatever continues them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from isara_jax.engine.kv_cache import KVCache
from isara_jax.engine.prefill import Prefix
from isara_jax.runtime import Mesh


@dataclass(frozen=True, kw_only=True)
class DecodeBatch(ABC):
    """A row a slot, which holds a prompt, or is empty.

    Attributes:
      cache: the prompts' keys and values.
      logits: those of the next tokens.
      limits: the most tokens that a continuation may have.
      keys: the samples' own.
      done: decode steps add nothing to a slot that is done, or empty.
    """

    cache: KVCache
    logits: Float[Array, "B ..."]
    limits: Int[Array, " B"]
    keys: Key[Array, " B"]
    done: Bool[Array, " B"]

    @property
    @abstractmethod
    def generated(self) -> Int[Array, " B"]:
        """The tokens of each continuation."""

    @property
    @abstractmethod
    def token_log_probabilities(self) -> Float[Array, "B ..."]:
        """Those of the continuations' tokens."""

    @property
    @abstractmethod
    def columns(self) -> int:
        """The token ids that a slot has room for."""

    @abstractmethod
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
    ) -> Self:
        """Puts a prompt of `length` tokens into a slot, to be continued from there."""

    @abstractmethod
    def take(self, slots: Int[Array, " b"]) -> Self:
        """Returns a batch that holds these slots only."""

    @abstractmethod
    def constrain(self, mesh: Mesh) -> Self:
        """Gives the batch the sharding that every program keeps.

        Left to the compiler, it changed from one to the next: that compiled programs
        twice, and the batch could not be updated in place.
        """


B = TypeVar("B", bound=DecodeBatch)


def insert(
    state: B,
    prefix: Prefix,
    slot: int,
    *,
    limit: int,
    key: Key[Array, ""],
    mesh: Mesh,
) -> B:
    """Copies a prefilled prompt into a slot, which generates up to `limit` tokens.

    The state's buffers are donated: the given value is consumed. `key` is the sample's.
    """
    token_ids = np.zeros(state.columns, np.int32)
    token_ids[: prefix.length] = prefix.token_ids
    return _insert(
        state,
        prefix.kv_row,
        prefix.logits,
        slot=jnp.int32(slot),
        token_ids=jnp.asarray(token_ids),
        length=jnp.int32(prefix.length),
        limit=jnp.int32(limit),
        key=key,
        mesh=mesh,
    )


@partial(jax.jit, donate_argnames=("state",), static_argnames=("mesh",))
def _insert(
    state: B,
    kv_row: KVCache,
    logits: Float[Array, " V"],
    *,
    slot: Int[Array, ""],
    token_ids: Int[Array, " S"],
    length: Int[Array, ""],
    limit: Int[Array, ""],
    key: Key[Array, ""],
    mesh: Mesh,
) -> B:
    state = state.with_prompt(
        kv_row,
        logits,
        slot=slot,
        token_ids=token_ids,
        length=length,
        limit=limit,
        key=key,
    )
    return state.constrain(mesh)


def share_prefix(state: B, prefix: Prefix, shared_len: int, *, mesh: Mesh) -> B:
    """Copies the first `shared_len` positions of a prefix to where all slots see them.

    The state's buffers are donated: the given value is consumed.
    """
    return _share(state, prefix.kv_row, jnp.int32(shared_len), mesh=mesh)


@partial(jax.jit, donate_argnames=("state",), static_argnames=("mesh",))
def _share(state: B, kv_row: KVCache, shared_len: Int[Array, ""], *, mesh: Mesh) -> B:
    cache = state.cache.share_prefix(kv_row, shared_len)
    return replace(state, cache=cache).constrain(mesh)
