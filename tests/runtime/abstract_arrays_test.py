"""Abstract arrays have the shapes, shardings and bytes of those that a run makes."""

import jax
import jax.numpy as jnp
import numpy as np

from isara_jax.runtime.abstract_arrays import (
    abstract_keys,
    abstract_outputs,
    abstract_replicated,
    abstract_replicated_tree,
    abstract_sharded,
    bytes_on_device,
)
from isara_jax.runtime.mesh import constrain, make_mesh, shard_batch


def test_outputs_have_the_compiled_program_s_shardings():
    mesh = make_mesh(data=4, model=2)

    def make(array):
        return constrain(jnp.zeros((8, 4)), ("batch", "kv_heads"), mesh), array + 1

    rows, other = abstract_outputs(make, abstract_replicated((3,), jnp.float32, mesh))
    assert rows.shape == (8, 4) and other.shape == (3,)
    made, _ = jax.jit(make)(jnp.zeros(3))
    assert rows.sharding.is_equivalent_to(made.sharding, 2)
    assert bytes_on_device(rows) == 4 * 2 * 2


def test_a_batch_is_sharded_as_one_that_is_placed():
    mesh = make_mesh(data=4, model=2)
    placed = shard_batch(np.zeros((8, 3), np.int32), mesh)
    found = abstract_sharded((8, 3), jnp.int32, mesh)
    assert found.sharding == placed.sharding
    assert bytes_on_device(found) == placed.nbytes // 4


def test_what_is_replicated_is_whole_on_every_device():
    mesh = make_mesh(data=4, model=2)
    tree = abstract_replicated_tree({"a": jnp.zeros((8, 4)), "b": jnp.int32(1)}, mesh)
    assert bytes_on_device(tree) == 4 * 32 + 4
    assert jax.dtypes.issubdtype(abstract_keys((2,), mesh).dtype, jax.dtypes.prng_key)


def test_elements_of_less_than_a_byte_are_packed():
    assert bytes_on_device(jax.ShapeDtypeStruct((10,), jnp.int4)) == 5
