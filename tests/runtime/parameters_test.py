import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from isara_jax.runtime.parameters import (
    dtype_of,
    logical_axes,
    map_named_parameters,
    map_parameters,
    parameters,
)


class Layers(nnx.Module):
    def __init__(self):
        self.q = nnx.Param(jnp.ones((2, 8)), axes=("layers", "embed"))


class Model(nnx.Module):
    def __init__(self):
        self.embedding = nnx.Param(jnp.ones((8, 4)), axes=("vocab", "embed"))
        self.layers = Layers()


@pytest.fixture
def model():
    return Model()


def test_parameters_are_found_with_their_axes(model):
    found = [logical_axes(parameter) for parameter in parameters(model)]
    assert found == [("vocab", "embed"), ("layers", "embed")]
    assert parameters({"step": jnp.zeros(())}) == []


def test_parameters_and_bare_arrays_are_mapped(model):
    state = {"model": model, "step": jnp.zeros((), jnp.int32)}

    def shape(leaf):
        if isinstance(leaf, nnx.Variable):
            return leaf.replace(jax.ShapeDtypeStruct(leaf.get_value().shape, "int8"))
        return "an array"

    mapped = map_parameters(shape, state)
    assert mapped["step"] == "an array"
    assert mapped["model"].layers.q.get_value().shape == (2, 8)
    assert logical_axes(mapped["model"].layers.q) == ("layers", "embed")


def test_a_parameter_is_mapped_with_its_path(model):
    paths = []

    def note(path, parameter):
        paths.append(path)
        return parameter

    map_named_parameters(note, model)
    assert paths == [("embedding",), ("layers", "q")]


def test_the_dtype_is_the_first_array_s(model):
    assert dtype_of(model) == jnp.float32
    assert dtype_of([jnp.zeros(1, jnp.bfloat16), jnp.zeros(1)]) == jnp.bfloat16
