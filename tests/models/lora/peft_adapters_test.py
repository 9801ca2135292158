"""Adapters as a value against peft: read from its folders, and written for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peft_twin import adapted_twin, drawn_adapters, loaded, logits, our_logits, saved
from tiny_llama import tiny_llama, torch_llama
from tiny_opt import load_opt, write_opt

from isara_jax.errors import InputError
from isara_jax.models.lora.lora import with_lora
from isara_jax.models.lora.peft import TENSORS, open_peft, read_adapters, write_adapters
from isara_jax.runtime.mesh import make_mesh

TOKENS = np.arange(3, 15)
WORDS = ("heads", "kv_heads", "mlp")


def read(folder, model, *, data=1, devices=1):
    mesh = make_mesh(data=data, model=devices)
    return read_adapters(open_peft(folder, model.config), model, mesh=mesh)


def test_what_we_write_is_what_peft_reads(tmp_path):
    model = tiny_llama()
    adapters = drawn_adapters(model, *WORDS)
    write_adapters(tmp_path, adapters, model.config, base="any/name")
    expected = our_logits(with_lora(model, adapters), TOKENS)
    twin = loaded(torch_llama(model), tmp_path)
    np.testing.assert_allclose(logits(twin, [TOKENS])[0], expected, atol=1e-4)
    assert np.abs(expected - our_logits(model, TOKENS)).max() > 0.1


def test_what_we_write_for_an_opt_is_what_peft_reads(tmp_path):
    twin = write_opt(tmp_path / "model")
    model = load_opt(tmp_path / "model")
    adapters = drawn_adapters(model, "heads", "down")
    write_adapters(tmp_path / "adapter", adapters, model.config, base="")
    expected = our_logits(with_lora(model, adapters), TOKENS)
    both = loaded(twin, tmp_path / "adapter")
    np.testing.assert_allclose(logits(both, [TOKENS])[0], expected, atol=1e-4)


def test_what_peft_writes_is_what_we_read(tmp_path):
    model = tiny_llama()
    twin = adapted_twin(torch_llama(model), ["q_proj", "v_proj", "o_proj", "down_proj"])
    saved(twin, tmp_path)
    adapters = read(tmp_path, model, data=2, devices=2)
    assert (adapters.rank, adapters.alpha) == (4, 8)
    on_mesh = adapters.weights["q"].b.get_value().addressable_shards[0].data
    assert on_mesh.shape == (2, 4, 4 // 2, 8)
    ours = our_logits(with_lora(model, jax.device_get(adapters)), TOKENS)
    np.testing.assert_allclose(ours, logits(twin, [TOKENS])[0], atol=1e-4)


def test_adapters_come_back_as_they_were_in_the_model_s_dtype(tmp_path):
    model = tiny_llama(dtype=jnp.bfloat16)
    adapters = drawn_adapters(model, "mlp")
    write_adapters(tmp_path, adapters, model.config, base="")
    again = read(tmp_path, model)
    assert again.alpha == adapters.alpha
    for one, two in zip(jax.tree.leaves(again), jax.tree.leaves(adapters), strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


def test_an_adapter_of_another_shape_is_refused(tmp_path):
    model = tiny_llama()
    write_adapters(tmp_path, drawn_adapters(model, "q"), model.config, base="")
    wider = tiny_llama()
    kernel = wider.layers.q
    wider.layers.q = kernel.replace(jnp.zeros((2, 40, 4, 8)))
    with pytest.raises(
        InputError, match=r"has the shape \[4, 32\], expected \[4, 40\]"
    ):
        read(tmp_path, wider)


def test_a_damaged_file_is_refused(tmp_path):
    model = tiny_llama()
    write_adapters(tmp_path, drawn_adapters(model, "q"), model.config, base="")
    (tmp_path / TENSORS).write_bytes(b"x")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read(tmp_path, model)
