"""The engine's programs on abstract arrays: their shapes, their work, their memory."""

import dataclasses

import jax
import pytest
from completions import SAMPLED, one_device
from tiny_llama import TINY

from isara_jax.engine.programs import LargestCall
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.abstract_arrays import bytes_on_device
from isara_jax.runtime.mesh import abstract_on

pytestmark = pytest.mark.usefixtures("shapes_for_arrays")
ROOMY = dataclasses.replace(TINY, context=512)


def call(**changes):
    mesh = one_device()
    model = jax.eval_shape(lambda: Llama(ROOMY, key=jax.random.key(0)))
    asked = {
        "model": abstract_on(model, mesh),
        "mesh": mesh,
        "sampling_params": SAMPLED,
        "slots": 8,
        "requests": 12,
        "prompt_len": 300,
        "context": ROOMY.context,
        "free": None,
    }
    return LargestCall(**(asked | changes))


def test_a_prefill_and_a_decode_step_are_yielded():
    prefill, decode = call().programs()
    assert (prefill.kind, prefill.rows, prefill.end) == ("prefill", 1, 300)
    assert (decode.kind, decode.rows) == ("decode", 8)
    assert decode.end - decode.start == 1 and decode.end >= 300 + 20


def test_what_is_no_argument_is_resident():
    prefill, decode = call().programs()
    assert prefill.arguments.keys() < decode.resident.keys()
    assert decode.arguments.keys() < prefill.resident.keys()
    blocks = prefill.resident["layers, copied"]
    assert bytes_on_device(blocks) == bytes_on_device(call().model.layers)


@pytest.mark.parametrize(("free", "rows"), [(None, 8), (1 << 30, 8), (1, 1)])
def test_there_are_as_many_slots_as_memory_can_hold(free, rows):
    assert call(free=free).group.rows == rows
