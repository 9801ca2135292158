"""What a slot holds when it is empty, and after a prompt is inserted into it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY, tiny_llama

from isara_jax.engine.decode.batch import insert
from isara_jax.engine.decode.state import empty_state
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.prefill.prefix_cache import Prefix, empty_row
from isara_jax.runtime.mesh import make_mesh

MESH = make_mesh(data=1, model=1)
PROMPT = (5, 6, 7, 5)


@pytest.fixture(scope="module")
def layer_blocks():
    return make_layer_blocks(tiny_llama())


def empty(layer_blocks):
    return empty_state(
        layer_blocks, rows=3, max_len=24, max_shared_len=0, new_tokens=4, mesh=MESH
    )


def test_empty_slots_are_done(layer_blocks):
    state = empty(layer_blocks)
    assert np.all(state.done) and not np.any(state.texts.lengths)
    assert state.log_probabilities.shape == (3, 4)


def test_a_prompt_enters_its_slot_and_no_other(layer_blocks):
    key = jax.random.key(7)
    logits = jnp.arange(TINY.vocab_size, dtype=jnp.float32)
    prefix = Prefix(
        token_ids=PROMPT,
        kv_row=empty_row(layer_blocks, max_len=64, mesh=MESH),
        logits=logits,
        computed_tokens=len(PROMPT),
        reused_tokens=0,
    )
    state = insert(empty(layer_blocks), prefix, 1, limit=2, key=key, mesh=MESH)
    assert state.done.tolist() == [True, False, True]
    assert state.limits.tolist() == [0, 2, 0]
    assert state.texts.lengths.tolist() == [0, len(PROMPT), 0]
    assert state.texts.token_ids[1, :5].tolist() == [*PROMPT, 0]
    assert np.flatnonzero(state.texts.seen[1]).tolist() == [5, 6, 7]
    assert not np.any(state.texts.seen[0])
    assert state.cache.lengths.tolist() == [0, len(PROMPT), 0]
    np.testing.assert_array_equal(state.logits[1], logits)
    assert jax.random.key_data(state.keys[1]).tolist() == [0, 7]
