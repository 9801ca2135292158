"""The state of a batch of beams between two steps, and how a prompt enters a slot."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from isara_jax.engine.beam.branches import Branches, empty_branches
from isara_jax.engine.beam.hypotheses import Hypotheses, no_hypotheses
from isara_jax.engine.decode import DecodeBatch
from isara_jax.engine.kv_cache import (
    DenseCache,
    KVCache,
    LayerBlocks,
    empty_kv_cache,
)
from isara_jax.engine.sampling import TokenBuffer
from isara_jax.models.attention import XLA, AttentionBackend, attention_backend
from isara_jax.runtime import Mesh, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class BeamState(DecodeBatch):
    """A decode batch in which W beams continue the prompt of each slot.

    Attributes:
      cache: the prompts' keys and values, which steps only read.
      branches: those of the beams' tokens.
      prompts: token ids, from column 0 on.
      prompt_lengths: how many of them are a prompt's.
      seen: the tokens of a beam and its prompt.
      depth: the tokens of every running beam.
    """

    cache: DenseCache
    branches: Branches
    prompts: Int[Array, "B S"]
    prompt_lengths: Int[Array, " B"]
    logits: Float[Array, "B W V"]
    seen: Bool[Array, "B W V"]
    running: Hypotheses
    finished: Hypotheses
    depth: Int[Array, " B"]

    @property
    def generated(self) -> Int[Array, " B"]:
        return self.depth

    @property
    def token_log_probabilities(self) -> Float[Array, "B W N"]:
        return self.running.log_probabilities

    def texts(self) -> TokenBuffer:
        """Returns prompt and continuation of every beam, B * W rows."""
        rows, beams, new = self.running.tokens.shape
        room = ((0, 0), (0, 0), (0, new))
        prompts = jnp.broadcast_to(
            self.prompts[:, None], (rows, beams, self.prompts.shape[1])
        )
        columns = self.prompt_lengths[:, None] + jnp.arange(new)
        token_ids = jnp.pad(prompts, room)
        token_ids = token_ids.at[jnp.arange(rows)[:, None], :, columns].set(
            self.running.tokens.swapaxes(1, 2)
        )
        token_ids = token_ids.reshape(rows * beams, -1)
        generated = jnp.repeat(self.depth, beams)
        return TokenBuffer(
            token_ids=token_ids,
            mask=jnp.ones_like(token_ids),
            lengths=jnp.repeat(self.prompt_lengths, beams) + generated,
            generated=generated,
            seen=self.seen.reshape(rows * beams, -1),
        )

    @property
    def columns(self) -> int:
        """The token ids that a slot has room for."""
        return self.prompts.shape[1]

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
    ) -> "BeamState":
        """Puts a prompt into a slot, with one open beam: all of them would be alike."""
        seen = jnp.zeros(self.seen.shape[2], bool)
        seen = seen.at[token_ids].max(jnp.arange(token_ids.shape[0]) < length)
        _, beams, new = self.running.tokens.shape
        none = no_hypotheses(rows=1, beams=beams, new_tokens=new)
        # The beams are alike, so all but the first are out of the first choice.
        first = replace(none, scores=none.scores.at[:, 0].set(0.0))

        def put(texts: Hypotheses, row: Hypotheses) -> Hypotheses:
            return jax.tree.map(lambda all, one: all.at[slot].set(one[0]), texts, row)

        return BeamState(
            cache=self.cache.insert(kv_row, row=slot, length=length),
            branches=self.branches.cleared(slot),
            prompts=self.prompts.at[slot].set(token_ids),
            prompt_lengths=self.prompt_lengths.at[slot].set(length),
            logits=self.logits.at[slot].set(logits),
            seen=self.seen.at[slot].set(seen),
            running=put(self.running, first),
            finished=put(self.finished, none),
            depth=self.depth.at[slot].set(0),
            limits=self.limits.at[slot].set(limit),
            keys=self.keys.at[slot].set(key),
            done=self.done.at[slot].set(False),
        )

    def take(self, slots: Int[Array, " b"]) -> "BeamState":
        parts = {
            name: jax.tree.map(lambda array: array[slots], part)
            for name, part in vars(self).items()
            if name not in ("cache", "branches")
        }
        return BeamState(
            cache=self.cache.take_rows(slots),
            branches=self.branches.take(slots),
            **parts,
        )

    def constrain(self, mesh: Mesh) -> "BeamState":
        def split(array: Array) -> Array:
            return constrain(array, ("batch", "time", "time")[: array.ndim], mesh)

        return replace(
            self,
            cache=self.cache.constrain(mesh),
            branches=self.branches.constrain(mesh),
            prompts=split(self.prompts),
            prompt_lengths=split(self.prompt_lengths),
            logits=constrain(self.logits, ("batch", "time", "vocab"), mesh),
            seen=constrain(self.seen, ("batch", "time", "vocab"), mesh),
            running=jax.tree.map(split, self.running),
            finished=jax.tree.map(split, self.finished),
            depth=split(self.depth),
            limits=split(self.limits),
            done=split(self.done),
        )


@partial(
    jax.jit,
    static_argnames=(
        "rows",
        "max_len",
        "max_shared_len",
        "beams",
        "new_tokens",
        "mesh",
    ),
)
def empty_beams(
    layer_blocks: LayerBlocks,
    *,
    rows: int,
    max_len: int,
    max_shared_len: int,
    beams: int,
    new_tokens: int,
    mesh: Mesh,
) -> BeamState:
    """Returns empty slots of prompts of up to `max_shared_len + max_len` tokens."""
    vocabulary = layer_blocks.model.config.vocab_size
    zeros = jnp.zeros(rows, jnp.int32)
    none = no_hypotheses(rows=rows, beams=beams, new_tokens=new_tokens)
    state = BeamState(
        cache=cast(
            DenseCache,
            empty_kv_cache(
                layer_blocks,
                rows=rows,
                max_len=max_len,
                max_shared_len=max_shared_len,
                backend=beam_backend(mesh),
            ),
        ),
        branches=empty_branches(
            layer_blocks, rows=rows, beams=beams, new_tokens=new_tokens
        ),
        prompts=jnp.zeros((rows, max_shared_len + max_len), jnp.int32),
        prompt_lengths=zeros,
        logits=jnp.zeros((rows, beams, vocabulary), jnp.float32),
        seen=jnp.zeros((rows, beams, vocabulary), bool),
        running=none,
        finished=none,
        depth=zeros,
        limits=zeros,
        keys=jnp.broadcast_to(jax.random.key(0), (rows,)),
        done=jnp.ones(rows, bool),
    )
    return state.constrain(mesh)


def beam_backend(mesh: Mesh) -> AttentionBackend:
    """Returns the attention backend of beams: XLA where the platform's is paged.

    Beams see the columns of a mask, which the paged kernel of TPU does not take.
    """
    backend = attention_backend(mesh)
    return replace(XLA, mesh=mesh) if backend.kind == "tpu" else backend


def search_results(
    state: BeamState, slots: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the best finished continuation of each slot, and its log-probabilities."""
    if not slots.size:
        return
    found = state.finished
    tokens, log_probabilities, lengths = (
        np.asarray(array)[slots, 0]
        for array in (found.tokens, found.log_probabilities, found.lengths)
    )
    for row, slot in enumerate(slots.tolist()):
        best = slice(lengths[row])
        yield slot, tokens[row, best], log_probabilities[row, best]
