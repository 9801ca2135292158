"""A model is loaded once, when it is needed, and again after it was given away."""

import jax
import pytest
from tiny_llama import tiny_llama

from isara_jax.models.lora import fresh_adapters, target_weights
from isara_jax.models.model_handle import LoraModelHandle, ModelHandle
from isara_jax.runtime.mesh import make_mesh


class Loader:
    """Makes a value anew at every call, and keeps what it made."""

    def __init__(self, make):
        self.make = make
        self.made = []

    def __call__(self, *arguments):
        self.made.append(self.make())
        return self.made[-1]


@pytest.fixture
def load():
    return Loader(tiny_llama)


def adapters():
    model = tiny_llama()
    return fresh_adapters(
        model,
        target_weights(model, ("q",)),
        rank=2,
        alpha=4.0,
        key=jax.random.key(0),
        mesh=make_mesh(data=1, model=1),
    )


def test_a_model_is_loaded_when_it_is_first_needed(load):
    handle = ModelHandle(load)
    assert load.made == []
    assert handle() is handle() is load.made[0]
    assert len(load.made) == 1 and handle.adapters is None


def test_a_model_that_is_given_is_not_loaded(load):
    model = tiny_llama()
    assert ModelHandle(load, model)() is model
    assert load.made == []


def test_a_model_that_is_donated_or_dropped_is_loaded_again(load):
    handle = ModelHandle(load)
    assert handle.donate() is load.made[0]
    assert handle() is load.made[1]
    handle.unload()
    assert handle() is load.made[2]


def test_adapters_are_what_is_trained_and_merged_what_is_run(load):
    load_adapters = Loader(adapters)
    handle = LoraModelHandle(load_adapters, merge=load)
    assert handle.adapters is handle.adapters is load_adapters.made[0]
    assert load.made == []
    assert handle() is handle() is load.made[0]
    assert handle.donate() is load_adapters.made[0]
    assert handle() is load.made[1]
    assert len(load_adapters.made) == len(load.made) == 2
