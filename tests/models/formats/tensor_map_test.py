"""How a parameter lies in a file: our einsums on ours are torch's linear on theirs."""

import numpy as np
import pytest

from isara_jax.models.formats.tensor_map import layer_format, whole_format

SHAPES = {
    "table": ((7, 4), (7, 4)),
    "vector": ((2, 3), (6,)),
    "projection": ((4, 2, 3), (6, 4)),
    "merging": ((2, 3, 4), (4, 6)),
}


@pytest.mark.parametrize("layout", SHAPES)
def test_a_parameter_goes_out_and_in_to_the_bit(layout):
    ours, theirs = SHAPES[layout]
    tensor = whole_format("x.weight", "x", layout)
    value = np.random.default_rng(0).standard_normal(ours)
    assert tensor.their_shape(ours) == theirs
    there = tensor.theirs(value)
    assert there.shape == theirs and there.flags.c_contiguous
    np.testing.assert_array_equal(tensor.ours(there, ours), value)


def test_a_projection_is_torch_s_linear():
    tensor = layer_format("h.{}.q.weight", "q", "projection")
    theirs = np.random.default_rng(0).standard_normal((6, 4))
    x = np.random.default_rng(1).standard_normal(4)
    got = np.einsum("d,dnh->nh", x, tensor.ours(theirs, (4, 2, 3)))
    np.testing.assert_allclose(got.reshape(6), theirs @ x)


def test_merging_heads_is_torch_s_linear():
    tensor = layer_format("h.{}.o.weight", "o", "merging")
    theirs = np.random.default_rng(0).standard_normal((4, 6))
    x = np.random.default_rng(1).standard_normal((2, 3))
    got = np.einsum("nh,nhd->d", x, tensor.ours(theirs, (2, 3, 4)))
    np.testing.assert_allclose(got, theirs @ x.reshape(6))


def test_a_parameter_of_layers_has_a_name_for_each():
    tensor = layer_format("h.{}.b", "b", "vector")
    assert tensor.layered and tensor.path == ("layers", "b")
    assert list(tensor.names(3)) == ["h.0.b", "h.1.b", "h.2.b"]
    tensor = whole_format("b", "b")
    assert not tensor.layered and tensor.path == ("b",)
    assert list(tensor.names(3)) == ["b"]
