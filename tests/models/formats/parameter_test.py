"""A parameter out of its tensors: cast, stacked over layers, split over the mesh."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY, tiny_llama

from isara_jax.errors import InputError
from isara_jax.models.formats.parameter import read_parameter
from isara_jax.models.formats.tensor_map import layer_tensor, model_tensor
from isara_jax.models.formats.tensor_source import TensorSource
from isara_jax.runtime.mesh import make_mesh, sharding_for

Q = layer_tensor("{}.q.weight", "q", "projection")
NORM = model_tensor("norm.weight", "norm")
STORED = {
    f"{layer}.q.weight": np.random.default_rng(layer)
    .standard_normal((TINY.heads * TINY.head_size, TINY.width))
    .astype(np.float32)
    for layer in range(TINY.layers)
}


def source_of(tensors):
    readers = {name: (lambda value=value: value) for name, value in tensors.items()}
    return TensorSource(path=Path("m"), readers=readers)


def read(tensor, variable, tensors, *, data=1, model=1):
    mesh = make_mesh(data=data, model=model)
    return read_parameter(source_of(tensors), tensor, variable, mesh=mesh)


def test_the_tensors_of_the_layers_are_stacked():
    q = read(Q, tiny_llama().layers.q, STORED)
    assert q.shape == (TINY.layers, TINY.width, TINY.heads, TINY.head_size)
    for layer, stored in enumerate(STORED.values()):
        np.testing.assert_array_equal(q[layer].reshape(TINY.width, -1), stored.T)


def test_a_parameter_has_the_dtype_of_the_model():
    q = read(Q, tiny_llama(dtype=jnp.bfloat16).layers.q, STORED)
    assert q.dtype == jnp.bfloat16


def test_a_parameter_is_split_as_its_axes_say():
    q = read(Q, tiny_llama().layers.q, STORED, data=2, model=4)
    axes = ("layers", "embed", "heads", "head_dim")
    expected = sharding_for(axes, q.shape, make_mesh(data=2, model=4))
    assert q.sharding.is_equivalent_to(expected, q.ndim)
    np.testing.assert_array_equal(q, read(Q, tiny_llama().layers.q, STORED))


def test_a_tensor_of_another_shape_is_refused_by_name():
    tensors = STORED | {"1.q.weight": np.ones((3, 3), np.float32)}
    with pytest.raises(InputError, match=r"'1\.q\.weight' has the shape \[3, 3\]"):
        read(Q, tiny_llama().layers.q, tensors)


def test_a_parameter_without_layers_is_one_tensor():
    value = np.arange(TINY.width, dtype=np.float32)
    got = read(NORM, tiny_llama().norm, {"norm.weight": value})
    np.testing.assert_array_equal(got, value)
