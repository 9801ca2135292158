"""A prompt enters a slot, whatever continues it there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY, tiny_llama

from isara_jax.engine.beam.state import empty_beams
from isara_jax.engine.decode.batch import insert, share_prefix
from isara_jax.engine.decode.state import empty_state
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.engine.prefill.chunking import plan_spans
from isara_jax.engine.prefill.prefix_cache import empty_prefix_cache
from isara_jax.runtime.mesh import make_mesh

MESH = make_mesh(data=1, model=1)
PROMPT = (5, 6, 7, 5)
KEY = jax.random.key(7)
SIZES = {"rows": 3, "max_len": 24, "max_shared_len": 4, "new_tokens": 4, "mesh": MESH}


@pytest.fixture(scope="module")
def layer_blocks():
    return make_layer_blocks(tiny_llama())


@pytest.fixture(scope="module")
def prefix(layer_blocks):
    cache = empty_prefix_cache(layer_blocks, longest=8, mesh=MESH)
    (spans,) = plan_spans([PROMPT])
    return cache.prefill(PROMPT, spans)[1]


@pytest.fixture(params=["samples", "beams"])
def empty(request, layer_blocks):
    if request.param == "samples":
        return empty_state(layer_blocks, **SIZES)
    return empty_beams(layer_blocks, beams=2, **SIZES)


def test_a_slot_that_is_filled_is_no_longer_done(empty, prefix):
    state = insert(empty, prefix, 1, limit=2, key=KEY, mesh=MESH)
    assert state.done.tolist() == [True, False, True]
    assert state.limits.tolist() == [0, 2, 0]
    assert state.generated.tolist() == [0, 0, 0]
    assert state.cache.lengths.tolist() == [0, len(PROMPT), 0]
    assert jax.random.key_data(state.keys[1]).tolist() == [0, 7]
    np.testing.assert_array_equal(
        np.atleast_2d(state.logits[1]),
        np.tile(prefix.logits, (state.logits[1].size // TINY.vocab_size, 1)),
    )
    assert not np.any(state.logits[0])


def test_positions_that_are_shared_are_not_copied_into_the_slot(empty, prefix):
    state = share_prefix(empty, prefix, 3, mesh=MESH)
    assert int(state.cache.shared_len) == 3
    state = insert(state, prefix, 0, limit=2, key=KEY, mesh=MESH)
    assert state.cache.lengths.tolist() == [1, 0, 0]


def test_a_batch_of_some_slots_holds_them_in_their_order(empty, prefix):
    state = insert(empty, prefix, 2, limit=3, key=KEY, mesh=MESH)
    fewer = state.take(jnp.asarray([2, 0]))
    assert fewer.done.tolist() == [False, True]
    assert fewer.limits.tolist() == [3, 0]
    assert fewer.cache.lengths.tolist() == [len(PROMPT), 0]


def test_a_prompt_enters_its_slot_and_no_other(layer_blocks, prefix):
    state = empty_state(layer_blocks, **SIZES)
    state = insert(state, prefix, 1, limit=2, key=KEY, mesh=MESH)
    assert state.texts.lengths.tolist() == [0, len(PROMPT), 0]
    assert state.texts.token_ids[1, :5].tolist() == [*PROMPT, 0]
    assert np.flatnonzero(state.texts.seen[1]).tolist() == [5, 6, 7]
    assert not np.any(state.texts.seen[0])
