"""What is written beside the work holds what was to be saved, not what came after."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored_trees import assert_same, hold_writes

from isara_jax.runtime.checkpoint import TreeWriter, restore_tree
from isara_jax.runtime.mesh import make_mesh, sharding_for


@functools.partial(jax.jit, donate_argnums=0)
def stepped(tree):
    return jax.tree.map(lambda array: array * 0 - 1, tree)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_tree_in_flight_is_that_of_its_step(tmp_path, monkeypatch, devices):
    path, mesh = tmp_path / "checkpoint", make_mesh(data=devices, model=1)
    sharding = sharding_for(("embed", "mlp"), (64, 80), mesh)
    drawn = np.random.default_rng(0).standard_normal((64, 80), np.float32)
    tree = {str(n): jax.device_put(drawn + n, sharding) for n in range(4)}
    go_on, writer = hold_writes(monkeypatch), TreeWriter()
    writer.save(path, tree)
    for _ in range(3):  # each writes into what the one before gave back
        tree = stepped(tree)
    jax.block_until_ready(tree)
    go_on.set()
    writer.wait()
    expected = {name: jnp.asarray(drawn + int(name)) for name in tree}
    assert_same(restore_tree(path, tree), expected)


def test_a_tree_waits_for_the_one_before(tmp_path):
    writer = TreeWriter()
    for number in range(3):
        writer.save(tmp_path / str(number), {"a": jnp.full(3, number)})
        assert [(tmp_path / str(n)).exists() for n in range(number)] == [True] * number
    writer.wait()
    writer.wait()
    restored = restore_tree(tmp_path / "2", {"a": jnp.zeros(3, int)})
    assert restored["a"].tolist() == [2, 2, 2]
