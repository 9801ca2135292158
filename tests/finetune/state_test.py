"""The training state, made and described: the same shapes, dtypes and shardings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import tiny_llama

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.state import abstract_state, cast, copy_as, initial_state
from isara_jax.runtime.mesh import make_mesh

CONFIGS = {
    "adamw": FinetuneConfig(),
    "adafactor": FinetuneConfig(optimizer="adafactor"),
    "bf16 masters": FinetuneConfig(master_dtype="bfloat16"),
    "spikes": FinetuneConfig(spike_factor=3.0),
    "early stop": FinetuneConfig(early_stop_epochs=1),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_described_state_is_that_which_is_made(name):
    config, mesh = CONFIGS[name], make_mesh(data=4, model=2)
    made = initial_state(tiny_llama(), config=config, mesh=mesh)
    described = abstract_state(tiny_llama(), config=config, mesh=mesh)
    assert jax.tree.structure(made) == jax.tree.structure(described)
    for array, shape in zip(
        jax.tree.leaves(made), jax.tree.leaves(described), strict=True
    ):
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
        assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)


def test_a_state_begins_at_step_0_with_moments_of_0():
    config, mesh = CONFIGS["early stop"], make_mesh(data=1, model=1)
    state = initial_state(tiny_llama(), config=config, mesh=mesh)
    assert int(state.step) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.optimizer))
    assert np.isinf(state.best.loss) and state.loss_history is None


def test_the_best_model_has_buffers_of_its_own():
    config, mesh = CONFIGS["early stop"], make_mesh(data=1, model=1)
    state = initial_state(tiny_llama(), config=config, mesh=mesh)
    for master, best in zip(
        jax.tree.leaves(state.model), jax.tree.leaves(state.best.model), strict=True
    ):
        np.testing.assert_array_equal(master, best)
        assert master.unsafe_buffer_pointer() != best.unsafe_buffer_pointer()


def test_a_cast_copies_only_what_has_another_dtype():
    tree = {"a": jnp.ones(3), "b": jnp.ones(3, jnp.bfloat16)}
    changed = cast(tree, jnp.float32)
    assert changed["a"] is tree["a"]
    assert changed["b"].dtype == jnp.float32
    assert copy_as(tree, jnp.float32)["a"] is not tree["a"]
