"""Beams that part from one row, against rows of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from completions import one_device
from tiny_llama import TINY, tiny_llama

from isara_jax.engine.beam import branches
from isara_jax.engine.beam.search import _advance
from isara_jax.engine.beam.state import empty_beams
from isara_jax.engine.decode.batch import insert
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.prefill.chunking import plan_spans
from isara_jax.engine.prefill.prefix_cache import empty_prefix_cache
from isara_jax.models.decoder import hidden_states

BEAMS, STEPS = 3, 5
PROMPTS = np.random.default_rng(0).integers(0, TINY.vocab_size, (2, 12)).tolist()
WAYS = np.random.default_rng(1).integers(0, TINY.vocab_size, (2, BEAMS, STEPS))


def inserted(model, *, slots):
    """Returns slots that hold both prompts, and empty ones."""
    mesh, blocks = one_device(), make_layer_blocks(model)
    sizes = {"max_len": 16, "max_shared_len": 0, "beams": BEAMS, "new_tokens": STEPS}
    state = empty_beams(blocks, rows=slots, mesh=mesh, **sizes)
    cache = empty_prefix_cache(blocks, longest=16, mesh=mesh)
    for slot, prompt in enumerate(PROMPTS):
        (spans,) = plan_spans([prompt])
        cache, prefix = cache.prefill(prompt, spans)
        how = {"limit": STEPS, "key": jax.random.key(0), "mesh": mesh}
        state = insert(state, prefix, slot, **how)
    return blocks, state


def logits_of(model, token_ids):
    token_ids = jnp.asarray(token_ids)
    positions = jnp.broadcast_to(jnp.arange(token_ids.shape[1]), token_ids.shape)
    states = hidden_states(
        model,
        token_ids,
        segments=jnp.ones_like(token_ids),
        positions=positions,
        remat="none",
    )
    return model.logits(states.reshape(-1, TINY.width)).reshape(*states.shape[:2], -1)


@pytest.mark.parametrize("column_block", [128, 4])
@pytest.mark.parametrize("window", [None, 4, 9])
def test_branches_of_a_prompt_are_rows_of_their_own(monkeypatch, column_block, window):
    monkeypatch.setattr(branches, "COLUMN_BLOCK", column_block)
    model = tiny_llama()
    model.config = dataclasses.replace(TINY, window=window)
    # A number of slots that no program was compiled for with other blocks.
    slots = 3 if column_block == 128 else 4
    blocks, state = inserted(model, slots=slots)
    order, got = np.arange(BEAMS), []
    for step in range(STEPS):
        rolled = np.roll(order, 1)  # in which the ways stand side by side
        parents = np.argsort(order)[rolled]
        order = rolled
        tokens = state.running.tokens.at[:2, :, step].set(WAYS[:, order, step])
        state = dataclasses.replace(
            state, running=dataclasses.replace(state.running, tokens=tokens)
        )
        state = _advance(blocks, state, jnp.broadcast_to(parents, (slots, BEAMS)))
        state = dataclasses.replace(state, depth=state.depth + ~state.done)
        got.append(state.logits[:2, np.argsort(order)])
    texts = [[*PROMPTS[row], *WAYS[row, way]] for row in (0, 1) for way in range(BEAMS)]
    expected = logits_of(model, texts)[:, 12:].reshape(2, BEAMS, STEPS, -1)
    np.testing.assert_allclose(jnp.stack(got, axis=2), expected, atol=2e-5)


def test_a_part_that_sees_nothing_changes_no_bit():
    keys = jax.random.split(jax.random.key(0), 4)
    q = jax.random.normal(keys[0], (2, BEAMS, 4, 8))
    k, v = (jax.random.normal(key, (2, 2, 6, 8)) for key in keys[1:3])
    sees = jnp.ones((2, BEAMS, 6), bool)
    part = branches._attended(q, branches.KVSegment(k, v, sees))
    nothing = branches._attended(q, branches.KVSegment(v, k, ~sees))
    for merged, alone in zip(branches._merged(part, nothing), part, strict=True):
        np.testing.assert_array_equal(merged, alone)
