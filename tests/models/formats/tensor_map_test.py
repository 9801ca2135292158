"""Layouts of parameters: our einsums on theirs are torch's linear on the file's."""

import numpy as np
import pytest

from isara_jax.models.formats.tensor_map import layer_tensor, model_tensor

SHAPES = {
    "same": ((7, 4), (7, 4)),
    "flat": ((2, 3), (6,)),
    "projection": ((4, 2, 3), (6, 4)),
    "merge_heads": ((2, 3, 4), (4, 6)),
}


@pytest.mark.parametrize("layout", SHAPES)
def test_a_parameter_goes_out_and_in_to_the_bit(layout):
    shape, stored = SHAPES[layout]
    tensor = model_tensor("x.weight", "x", layout)
    value = np.random.default_rng(0).standard_normal(shape)
    assert tensor.hf_shape(shape) == stored
    there = tensor.to_hf(value)
    assert there.shape == stored and there.flags.c_contiguous
    np.testing.assert_array_equal(tensor.from_hf(there, shape), value)


def test_a_projection_is_torch_s_linear():
    tensor = layer_tensor("h.{}.q.weight", "q", "projection")
    stored = np.random.default_rng(0).standard_normal((6, 4))
    x = np.random.default_rng(1).standard_normal(4)
    got = np.einsum("d,dnh->nh", x, tensor.from_hf(stored, (4, 2, 3)))
    np.testing.assert_allclose(got.reshape(6), stored @ x)


def test_merging_heads_is_torch_s_linear():
    tensor = layer_tensor("h.{}.o.weight", "o", "merge_heads")
    stored = np.random.default_rng(0).standard_normal((4, 6))
    x = np.random.default_rng(1).standard_normal((2, 3))
    got = np.einsum("nh,nhd->d", x, tensor.from_hf(stored, (2, 3, 4)))
    np.testing.assert_allclose(got, stored @ x.reshape(6))


def test_a_parameter_of_layers_has_a_name_for_each():
    tensor = layer_tensor("h.{}.b", "b", "flat")
    assert tensor.stacked and tensor.path == ("layers", "b")
    assert list(tensor.names(3)) == ["h.0.b", "h.1.b", "h.2.b"]
    tensor = model_tensor("b", "b")
    assert not tensor.stacked and tensor.path == ("b",)
    assert list(tensor.names(3)) == ["b"]
