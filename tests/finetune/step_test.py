"""The compiled step: its memory, what it tells, and the other optimizer and master."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY, tiny_llama
from training import trained_on

from isara_jax.finetune import step
from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.collate import BatchShape, abstract_batch
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.loss import HEAD_CHUNK
from isara_jax.finetune.state import abstract_state, initial_state
from isara_jax.finetune.step import train_step
from isara_jax.finetune.trainer import TrainingHooks
from isara_jax.models.checkpoints.load import named_tensors
from isara_jax.models.llama.model import Llama
from isara_jax.models.lora.lora import abstract_adapters, quantize_model, target_weights
from isara_jax.runtime.mesh import abstract_on, make_mesh

CONFIG = FinetuneConfig(
    learning_rate=1e-3, train_batch=4, accumulation=1, epochs=6, remat="none"
)
WIDE = dataclasses.replace(
    TINY,
    vocab_size=512,
    width=128,
    heads=1,
    kv_heads=1,
    head_size=128,
    feed_forward=256,
)


def wide_llama():
    return Llama(WIDE, key=jax.random.key(0))


def examples(count=4):
    return [
        TrainingExample(
            id=f"r01-{number:04d}",
            prompt_tokens=(5, 6, 7 + number),
            answer_tokens=(20 + number, 30, 2),
        )
        for number in range(count)
    ]


def train(model, *, mesh=None, hooks=None, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return trained_on(examples(), model, config=config, mesh=mesh, hooks=hooks)


def state_bytes(state):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def program(config, *, micro_batches, rows=4, trained=None, base=None):
    """Compiles a step of the wide model, or of what else is trained."""
    mesh = make_mesh(data=1, model=1)
    trained = trained or jax.eval_shape(wide_llama)
    state = abstract_state(trained, config=config, mesh=mesh)
    shape = BatchShape(
        rows=rows, micro_batches=micro_batches, length=64, groups=1, answer_length=64
    )
    lowered = train_step.lower(
        state,
        abstract_batch(shape),
        learning_rate=jax.ShapeDtypeStruct((), jnp.float32),
        key=jax.eval_shape(lambda: jax.random.key(0)),
        config=config,
        dtype=jnp.dtype("float32"),
        mesh=mesh,
        base=base,
    )
    return lowered.compile(), state_bytes(state)


def compiled(config, **shape):
    step, state = program(config, **shape)
    return step.memory_analysis(), state


@pytest.mark.parametrize("spike_factor", [0.0, 2.0])
def test_a_step_reuses_the_state_s_buffers(spike_factor):
    config = dataclasses.replace(CONFIG, spike_factor=spike_factor)
    memory, state = compiled(config, micro_batches=2)
    assert memory.alias_size_in_bytes >= state
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 1000


@pytest.mark.parametrize("kind", [None, "int8", "nf4"])
def test_nothing_is_computed_for_a_gradient_by_a_frozen_base(kind):
    # The compiler counts what is in a scan once.
    shallow = dataclasses.replace(WIDE, layers=1)
    model = jax.eval_shape(lambda: Llama(shallow, key=jax.random.key(0)))
    kernels = target_weights(model, ("embed",))
    adapters = abstract_adapters(model, kernels, rank=1, alpha=1)
    mesh = make_mesh(data=1, model=1)
    base = quantize_model(model, kind, mesh=mesh) if kind else abstract_on(model, mesh)
    step, _ = program(CONFIG, micro_batches=1, trained=adapters, base=base)
    flops = step.cost_analysis()["flops"]
    head, positions, answers = shallow.vocab_size * shallow.width, 4 * 64, 64
    layers = sum(leaf.size for leaf in jax.tree.leaves(model)) - head
    needed = 4 * (layers * positions + head * answers)
    # A gradient by the kernels would make it 1.5 times as many.
    assert 0.95 * needed < flops < 1.1 * needed


def test_micro_batches_bound_the_memory():
    one, _ = compiled(CONFIG, micro_batches=2)
    four, _ = compiled(CONFIG, micro_batches=8)
    whole, _ = compiled(CONFIG, micro_batches=1, rows=32)
    assert four.temp_size_in_bytes < 1.05 * one.temp_size_in_bytes
    assert four.temp_size_in_bytes < 0.5 * whole.temp_size_in_bytes


def test_the_update_ratio_is_that_of_the_norms():
    before = dict(named_tensors(tiny_llama()))
    trained, (metrics,) = train(tiny_llama(), epochs=1)
    after = dict(named_tensors(trained))

    def norm(arrays):
        return np.sqrt(sum(np.sum(np.square(array)) for array in arrays))

    change = norm(after[name] - before[name] for name in before)
    ratio = change / norm(before.values())
    assert metrics.update_ratio == pytest.approx(ratio, rel=1e-3)
    assert metrics.record()["update_ratio"] == metrics.update_ratio


def test_adafactor_learns_with_less_memory_on_any_mesh():
    def bytes_with(optimizer):
        config = dataclasses.replace(CONFIG, optimizer=optimizer)
        model = jax.eval_shape(wide_llama)
        mesh = make_mesh(data=1, model=1)
        return state_bytes(abstract_state(model, config=config, mesh=mesh).optimizer)

    assert bytes_with("adafactor") < 0.02 * bytes_with("adamw")
    changes = {"optimizer": "adafactor", "learning_rate": 3e-3}
    alone, metrics = train(wide_llama(), **changes)
    assert metrics[-1].loss < 0.6 * metrics[0].loss
    split, others = train(wide_llama(), mesh=make_mesh(data=4, model=2), **changes)
    assert [m.loss for m in others] == pytest.approx([m.loss for m in metrics], 1e-4)
    theirs = dict(named_tensors(alone))
    for name, value in named_tensors(split):
        np.testing.assert_allclose(value, theirs[name], atol=1e-4)


def test_a_rate_means_to_adafactor_what_it_means_to_adamw():
    _, (adamw,) = train(tiny_llama(), epochs=1)
    _, (adafactor,) = train(tiny_llama(), epochs=1, optimizer="adafactor")
    # At the first step both take the gradient's sign, but for Adafactor's clipping.
    assert 0.5 < adafactor.update_ratio / adamw.update_ratio < 1.05


def narrow(**changes):
    model = tiny_llama(dtype=jnp.bfloat16)
    return train(model, master_dtype="bfloat16", **changes)


def test_bf16_masters_take_half_the_memory_and_follow_the_fp32_ones():
    def bytes_with(master_dtype):
        config = dataclasses.replace(CONFIG, master_dtype=master_dtype)
        model = jax.eval_shape(lambda: tiny_llama(dtype=jnp.bfloat16))
        mesh = make_mesh(data=1, model=1)
        return state_bytes(abstract_state(model, config=config, mesh=mesh))

    assert bytes_with("bfloat16") == pytest.approx(8 / 12 * bytes_with("float32"), 1e-3)
    slow = {"learning_rate": 5e-4, "epochs": 40}
    model, metrics = narrow(**slow)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("bfloat16")}
    _, wide = train(tiny_llama(dtype=jnp.bfloat16), **slow)
    fallen = wide[0].loss - wide[-1].loss
    assert fallen > 1
    assert metrics[-1].loss == pytest.approx(wide[-1].loss, abs=0.1 * fallen)


def test_bf16_masters_round_by_the_seed_alone_on_any_mesh():
    states = []
    save = TrainingHooks(
        should_save=lambda _: True,
        save_state=lambda s: states.append(jax.tree.map(np.array, s)),
    )
    model, _ = narrow(epochs=2, hooks=save)
    again, _ = narrow(epochs=2)
    for one, two in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    kinds = {leaf.dtype for leaf in jax.tree.leaves(states[0].optimizer[1].mu)}
    assert kinds == {jnp.dtype("bfloat16")}
    kinds = {leaf.dtype for leaf in jax.tree.leaves(states[0].optimizer[1].nu)}
    assert kinds == {jnp.dtype("float32")}


def test_the_state_that_is_started_with_is_the_target_of_a_restore():
    config = dataclasses.replace(
        CONFIG,
        optimizer="adafactor",
        master_dtype="bfloat16",
        spike_factor=2.0,
        early_stop_epochs=1,
    )
    mesh = make_mesh(data=4, model=2)
    target = abstract_state(jax.eval_shape(wide_llama), config=config, mesh=mesh)
    state = initial_state(wide_llama(), config=config, mesh=mesh)
    assert jax.tree.structure(target) == jax.tree.structure(state)
    for want, have in zip(jax.tree.leaves(target), jax.tree.leaves(state), strict=True):
        assert (want.shape, want.dtype) == (have.shape, have.dtype)
        assert want.sharding.is_equivalent_to(have.sharding, have.ndim)


def test_the_head_sees_as_many_positions_a_device_as_without_a_mesh(monkeypatch):
    chunks = []

    def noted(model, batch, *, chunk, **_):
        chunks.append(chunk)
        return jnp.sum(model.embedding.get_value())

    monkeypatch.setattr(step, "answer_loss", noted)
    shape = BatchShape(rows=4, micro_batches=1, length=16, groups=4, answer_length=16)
    for data in (1, 4):
        mesh = make_mesh(data=data, model=1)
        jax.eval_shape(
            lambda model, batch, mesh=mesh: step.mean_gradients(
                model, batch, remat="none", mesh=mesh
            ),
            tiny_llama(),
            abstract_batch(shape),
        )
    assert chunks == [HEAD_CHUNK, 4 * HEAD_CHUNK]
