"""How layers are split into blocks, by the platform and its memory."""

import jax
import pytest
from tiny_llama import TINY, tiny_llama

from isara_jax.engine.kv_cache import layer_blocks
from isara_jax.runtime.mesh import make_mesh

PLENTY = 2**40


def block_sizes(*, data=1, free=PLENTY):
    mesh = make_mesh(data=data, model=1)
    span = layer_blocks.make_layer_blocks(tiny_llama(), mesh=mesh, free=free)
    return layer_blocks.block_sizes(span)


def layer_bytes():
    return sum(array.nbytes for array in jax.tree.leaves(tiny_llama().layers))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_scan_would_copy_so_each_layer_is_a_block(monkeypatch, platform):
    monkeypatch.setattr(layer_blocks, "platform_of", lambda mesh: platform)
    assert block_sizes() == (1,) * TINY.layers


def test_on_tpu_all_layers_are_one_block(monkeypatch):
    monkeypatch.setattr(layer_blocks, "platform_of", lambda mesh: "tpu")
    assert block_sizes() == (TINY.layers,)


@pytest.mark.parametrize(("platform", "parts"), [("cpu", 1), ("gpu", 4)])
def test_memory_of_a_device_holds_its_part_of_a_copy(monkeypatch, platform, parts):
    monkeypatch.setattr(layer_blocks, "platform_of", lambda mesh: platform)
    # As much again is left to the slots.
    enough = 2 * (layer_bytes() // parts)
    assert block_sizes(data=4, free=enough) == (1,) * TINY.layers
    assert block_sizes(data=4, free=enough - 1) == (TINY.layers,)


def test_free_memory_is_asked_for_unless_given(monkeypatch):
    monkeypatch.setattr(layer_blocks, "free_bytes", lambda: 1000)
    assert block_sizes(free=None) == (TINY.layers,)
