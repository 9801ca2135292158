import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from isara_jax.errors import InputError
from isara_jax.runtime.mesh import (
    LOGICAL_AXIS_RULES,
    abstract_on,
    constrain,
    make_mesh,
    model_shardings,
    shard_batch,
    sharding_for,
)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=2, model=4)


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ((1, 1), (1, 1)),
        ((2, 3), (2, 3)),
        ((4, 2), (4, 2)),
        ((-1, 1), (8, 1)),
        ((-1, 8), (1, 8)),
        ((-1, 4), (2, 4)),
    ],
)
def test_devices_are_laid_out(asked, shape):
    data, model = asked
    mesh = make_mesh(data=data, model=model)
    assert mesh.devices.shape == shape
    assert mesh.axis_names == ("data", "model")
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_devices_may_be_given():
    two = jax.devices()[5:7]
    assert make_mesh(data=-1, model=2, devices=two).devices.tolist() == [two]


@pytest.mark.parametrize(
    ("data", "model"), [(3, 3), (9, 1), (0, 1), (1, 0), (-1, 0), (-2, 1), (-1, 9)]
)
def test_devices_do_not_fill_the_mesh(data, model):
    with pytest.raises(
        InputError, match=rf"mesh_data=-?\d+: .* `mesh_model`={model}, .* devices, 8"
    ):
        make_mesh(data=data, model=model)


@pytest.mark.parametrize(
    ("words", "shape", "expected"),
    [
        (("vocab", "embed"), (8, 4), ("model", "data")),
        (
            ("layers", "embed", "heads", "head_dim"),
            (8, 4, 4, 8),
            (None, "data", "model", None),
        ),
        (("vocab", "embed"), (9, 4), (None, "data")),
        (("vocab", "embed"), (8, 3), ("model", None)),
        (("layers", "norm"), (8, 8), (None, None)),
        (("batch", "time"), (2, 8), ("data", None)),
        (("batch", "time"), (1, 8), (None, None)),
        ((), (), ()),
    ],
)
def test_logical_axes_become_a_sharding(mesh, words, shape, expected):
    assert sharding_for(words, shape, mesh).spec == PartitionSpec(*expected)


def test_every_rule_names_an_axis_of_the_mesh(mesh):
    assert set(LOGICAL_AXIS_RULES.values()) <= {None, *mesh.axis_names}


def test_an_unknown_axis_or_an_axis_too_few_is_a_bug(mesh):
    with pytest.raises(KeyError):
        sharding_for(("colour",), (8,), mesh)
    with pytest.raises(ValueError, match="zip"):
        sharding_for(("embed",), (8, 8), mesh)


class Pair(nnx.Module):
    def __init__(self):
        self.table = nnx.Param(jnp.ones((8, 4)), axes=("vocab", "embed"))
        self.norm = nnx.Param(jnp.ones(4, jnp.bfloat16), axes=("norm",))


def test_a_model_becomes_its_shardings(mesh):
    placed = jax.device_put(Pair(), model_shardings(Pair(), mesh))
    assert placed.table[...].sharding.spec == PartitionSpec("model", "data")
    assert placed.table[...].addressable_shards[0].data.shape == (2, 2)
    assert placed.norm[...].sharding.is_fully_replicated


def test_a_model_becomes_what_it_is_restored_into(mesh):
    abstract = abstract_on(Pair(), mesh)
    table, norm = abstract.table.get_value(), abstract.norm.get_value()
    assert isinstance(table, jax.ShapeDtypeStruct)
    assert table.sharding.spec == PartitionSpec("model", "data")
    assert (norm.shape, norm.dtype) == ((4,), jnp.bfloat16)


@pytest.mark.parametrize(("rows", "rows_a_device"), [(6, 3), (5, 5)])
def test_a_batch_is_split_over_its_rows(mesh, rows, rows_a_device):
    array = np.arange(rows * 3).reshape(rows, 3)
    placed = shard_batch(array, mesh)
    np.testing.assert_array_equal(placed, array)
    assert len(placed.sharding.device_set) == 8
    assert placed.addressable_shards[0].data.shape == (rows_a_device, 3)


def test_a_batch_of_one_axis(mesh):
    assert shard_batch(np.zeros(4, bool), mesh).sharding.spec == PartitionSpec("data")


def test_an_array_is_constrained_to_its_logical_axes(mesh):
    @jax.jit
    def constrained():
        return constrain(jnp.ones((8, 4)), ("batch", "mlp"), mesh)

    assert constrained().sharding.spec == PartitionSpec("data", "model")
