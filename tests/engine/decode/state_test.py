"""What a slot holds when it is empty."""

import numpy as np
import pytest
from tiny_llama import tiny_llama

from isara_jax.engine.decode.state import empty_state
from isara_jax.engine.kv_cache.layer_blocks import make_layer_blocks
from isara_jax.runtime.mesh import make_mesh

MESH = make_mesh(data=1, model=1)


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
