"""Training adapters against peft on torch, on a LLaMA and on an OPT, and on a mesh."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from peft_twin import adapted_twin, saved, tensors_of
from safetensors.numpy import load_file
from tiny_llama import tiny_llama, torch_llama
from tiny_opt import load_opt, relative_error, write_opt

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.trainer import TrainingHooks, finetune
from isara_jax.models.checkpoints.load import named_tensors
from isara_jax.models.lora.lora import quantize_model
from isara_jax.models.lora.peft import open_peft, read_adapters, write_adapters
from isara_jax.runtime.mesh import make_mesh, model_shardings

CONFIG = FinetuneConfig(
    learning_rate=1e-3,
    train_batch=4,
    accumulation=1,
    epochs=20,
    clip_norm=0.5,
    remat="none",
)
EXAMPLES = [
    TrainingExample(id="a", prompt_tokens=(5, 6, 7, 8), answer_tokens=(9, 10, 2)),
    TrainingExample(id="b", prompt_tokens=(11,), answer_tokens=(12, 13, 14, 15, 2)),
    TrainingExample(id="c", prompt_tokens=tuple(range(20, 38)), answer_tokens=(2,)),
    TrainingExample(id="d", prompt_tokens=(3, 4), answer_tokens=(50, 2)),
]
TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"),
    "opt": ("q_proj", "v_proj", "out_proj", "fc1", "fc2"),
}


def train(base, folder, *, mesh=None, epochs=20):
    """Returns the folder's adapters, trained on the base, and every step's metrics."""
    mesh, metrics = mesh or make_mesh(data=1, model=1), []
    trained = finetune(
        read_adapters(open_peft(folder, base.config), base, mesh=mesh),
        EXAMPLES,
        config=dataclasses.replace(CONFIG, epochs=epochs),
        round_index=1,
        seed=1,
        mesh=mesh,
        hooks=TrainingHooks(on_step=metrics.append),
        base=base,
    )
    return trained, metrics


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A LLaMA's folder of adapters, and what one device makes of them."""
    folder = tmp_path_factory.mktemp("adapters")
    twin = adapted_twin(torch_llama(tiny_llama()), TARGETS["llama"])
    saved(twin, folder)
    base = tiny_llama()
    return twin, folder, base, *train(base, folder)


def assert_steps_are_those_of(twin, metrics):
    own = [value for name, value in twin.named_parameters() if "lora_" in name]
    optimizer = torch.optim.AdamW(own, betas=(0.9, 0.95), weight_decay=0)
    assert len(metrics) == 20
    for step in metrics:
        optimizer.zero_grad()
        loss = torch.cat([answer_loss(twin, example) for example in EXAMPLES]).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(own, CONFIG.clip_norm)
        optimizer.param_groups[0]["lr"] = step.learning_rate
        optimizer.step()
        assert step.loss == pytest.approx(loss.item(), rel=1e-4)
        assert step.gradient_norm == pytest.approx(norm.item(), rel=1e-4)


def answer_loss(twin, example):
    tokens = torch.tensor([example.prompt_tokens + example.answer_tokens])
    split = len(example.prompt_tokens)
    log_p = torch.log_softmax(twin(tokens).logits[0, split - 1 : -1], -1)
    return -log_p[range(len(log_p)), tokens[0, split:]]


def assert_adapters_are_those_of(twin, adapters, config, folder):
    write_adapters(folder, adapters, config, base="")
    ours, theirs = load_file(folder / "adapter_model.safetensors"), tensors_of(twin)
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert relative_error(ours[name], wanted) < 1e-4, name


def test_twenty_steps_on_a_llama_are_those_of_peft(llama, tmp_path):
    twin, _, base, trained, metrics = llama
    assert_steps_are_those_of(twin, metrics)
    assert metrics[-1].loss < 0.99 * metrics[0].loss
    assert_adapters_are_those_of(twin, trained, base.config, tmp_path)


def test_twenty_steps_on_an_opt_are_those_of_peft(tmp_path):
    twin = adapted_twin(write_opt(tmp_path / "model"), TARGETS["opt"])
    base = load_opt(tmp_path / "model")
    trained, metrics = train(base, saved(twin, tmp_path / "given"))
    assert_steps_are_those_of(twin, metrics)
    assert_adapters_are_those_of(twin, trained, base.config, tmp_path / "trained")


def test_the_base_stays_as_it_is(llama):
    base = dict(named_tensors(llama[2]))
    for name, value in named_tensors(tiny_llama()):
        np.testing.assert_array_equal(base[name], value)


def test_more_devices_are_one(llama):
    _, folder, _, trained, metrics = llama
    mesh = make_mesh(data=4, model=2)
    base = jax.device_put(tiny_llama(), model_shardings(tiny_llama(), mesh))
    split, others = train(base, folder, mesh=mesh)
    assert [m.loss for m in others] == pytest.approx([m.loss for m in metrics], 1e-5)
    for one, two in zip(jax.tree.leaves(split), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    q = split.weights["q"]
    assert q.a.get_value().addressable_shards[0].data.shape == (2, 4, 32 // 4)
    assert q.b.get_value().addressable_shards[0].data.shape == (2, 4, 4 // 2, 8)


def test_a_quantised_base_trains_on_a_mesh_as_on_one_device(llama):
    _, folder, base, _, metrics = llama
    found = []
    for data, model in ((1, 1), (4, 2)):
        mesh = make_mesh(data=data, model=model)
        placed = jax.device_put(base, model_shardings(base, mesh))
        small = quantize_model(placed, "nf4", mesh=mesh)
        _, steps = train(small, folder, mesh=mesh, epochs=3)
        found.append([step.loss for step in steps])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    wide = [step.loss for step in metrics[:3]]
    assert found[0] != pytest.approx(wide, rel=1e-5)
    assert found[0] == pytest.approx(wide, rel=0.05)
