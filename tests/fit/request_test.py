"""What of a model is trained, what is frozen, and where both lie."""

import jax
import pytest

from isara_jax.errors import InputError
from isara_jax.models.lora import Adapters


def leaves(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def test_without_adapters_the_model_itself_is_trained(fit_request):
    request = fit_request()
    assert request.base is None
    assert leaves(request.trainable) == leaves(request.weights)


def test_with_adapters_the_model_is_their_frozen_base(fit_request):
    request = fit_request(lora={"lora_rank": 2})
    assert isinstance(request.trainable, Adapters)
    assert leaves(request.base) == leaves(request.weights)


def test_a_quantised_base_takes_fewer_bytes(fit_request):
    whole = fit_request(lora={"lora_rank": 2})
    small = fit_request(lora={"lora_rank": 2, "base_dtype": "int8"})
    assert size(small.base) < size(whole.base)


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_a_target_that_is_no_weight_is_refused(fit_request):
    request = fit_request(lora={"lora_rank": 2, "lora_targets": "nothing"})
    with pytest.raises(InputError, match="nothing"):
        _ = request.trainable


def test_the_data_axis_takes_the_devices_that_are_left(fit_request):
    assert dict(fit_request(mesh_model=2).mesh.shape) == {"data": 4, "model": 2}
