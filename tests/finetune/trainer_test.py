"""Finetuning against torch, against itself on other layouts, and when it goes wrong.

All of it on a LLaMA of random weights and a few examples.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import tiny_llama, torch_llama
from torch_training import assert_steps_are_torch_s
from training import CONFIG, trained_on
from whole_rows import logits_of

from isara_jax.errors import InputError
from isara_jax.finetune.data.packing import balanced_steps
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.trainer import finetune
from isara_jax.models.checkpoints.load import named_tensors
from isara_jax.runtime.mesh import make_mesh

EOS = 2


def examples(count):
    random = np.random.default_rng(3)

    def tokens(least, most):
        length = random.integers(least, most)
        return tuple(int(token) for token in random.integers(3, 97, length))

    return [
        TrainingExample(
            id=f"r01-{number:04d}",
            prompt_tokens=tokens(16, 24),
            answer_tokens=(*tokens(1, 8), EOS),
        )
        for number in range(count)
    ]


def train(model, data, *, mesh=None, seed=1, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return trained_on(data, model, config=config, mesh=mesh, seed=seed)


def assert_close(model, other, *, tolerance=1e-4):
    theirs = dict(named_tensors(other))
    for name, value in named_tensors(model):
        error = np.linalg.norm(value - theirs[name]) / np.linalg.norm(theirs[name])
        assert error < tolerance, name


@pytest.mark.parametrize("packing", ["on", "off"])
def test_twenty_steps_are_those_of_torch(packing):
    data = examples(4)
    twin = torch_llama(tiny_llama())
    trained, metrics = train(tiny_llama(), data, epochs=20, train_packing=packing)
    assert len(metrics) == 20
    assert_steps_are_torch_s(twin, data, metrics, clip_norm=CONFIG.clip_norm)
    assert max(step.gradient_norm for step in metrics) > CONFIG.clip_norm
    ours = dict(named_tensors(trained))
    for name, parameter in twin.named_parameters():
        wanted = parameter.detach().numpy()
        error = np.linalg.norm(ours[name] - wanted) / np.linalg.norm(wanted)
        assert error < 1e-4, name


def test_accumulation_is_one_large_batch():
    large, metrics = train(tiny_llama(), examples(16), train_batch=8, epochs=2)
    summed, others = train(
        tiny_llama(), examples(16), train_batch=2, accumulation=4, epochs=2
    )
    answers = sum(len(example.answer_tokens) for example in examples(16))
    assert sum(m.tokens for m in metrics[:2]) == answers
    assert [m.tokens for m in others] == [m.tokens for m in metrics]
    assert [m.loss for m in others] == pytest.approx(
        [m.loss for m in metrics], rel=1e-5
    )
    assert_close(summed, large, tolerance=1e-5)


def test_the_last_step_of_an_epoch_averages_over_what_it_has():
    padded, metrics = train(tiny_llama(), examples(3), train_batch=2, accumulation=4)
    exact, others = train(tiny_llama(), examples(3), train_batch=3)
    assert [m.loss for m in metrics] == pytest.approx([m.loss for m in others])
    assert_close(padded, exact, tolerance=1e-5)


@pytest.fixture(scope="module")
def alone():
    """What one device makes of two epochs."""
    return train(tiny_llama(), examples(16), **SHARED)


SHARED = {"train_batch": 8, "epochs": 2}


@pytest.mark.parametrize(
    ("data", "model", "changes"),
    [
        (2, 1, {}),
        (2, 2, {"train_packing": "off"}),
        (4, 2, {}),
        (8, 1, {"train_batch": 4, "accumulation": 2}),
    ],
)
def test_more_devices_are_one(alone, data, model, changes):
    trained, metrics = alone
    mesh = make_mesh(data=data, model=model)
    if changes.get("train_packing") == "off":  # another order
        trained, metrics = train(tiny_llama(), examples(16), **SHARED | changes)
    split, others = train(
        tiny_llama(), examples(16), mesh=mesh, **{**SHARED, **changes}
    )
    assert [m.loss for m in others] == pytest.approx(
        [m.loss for m in metrics], rel=1e-5
    )
    assert_close(split, trained, tolerance=1e-5)
    gate = split.layers.gate.get_value()
    assert len(gate.sharding.device_set) == data * model
    assert gate.addressable_shards[0].data.shape == (2, 32 // data, 64 // model)


@pytest.mark.parametrize("packing", ["on", "off"])
def test_rounds_share_one_compiled_step(caplog, packing):
    # A setting that no other test has compiled for.
    config = dataclasses.replace(
        CONFIG, weight_decay=0.1, train_packing=packing, train_row_length=128
    )
    longer = examples(4) + examples(8)[4:]
    with jax.log_compiles():
        for number, data in enumerate((examples(4), longer), start=1):
            finetune(
                tiny_llama(),
                data,
                config=config,
                round_index=number,
                seed=1,
                mesh=make_mesh(data=1, model=1),
            )
    assert caplog.text.count("Compiling jit(train_step)") == 1


def test_the_model_learns_to_stop():
    data = examples(8)
    model, metrics = train(
        tiny_llama(), data, train_batch=8, epochs=60, learning_rate=1e-2
    )
    assert metrics[-1].loss < 0.1
    for example in data:
        tokens = example.prompt_tokens + example.answer_tokens[:-1]
        assert int(logits_of(model, [tokens])[0, -1].argmax()) == EOS


def test_another_seed_is_another_order():
    one, again, other = (
        [m.loss for m in train(tiny_llama(), examples(8), seed=seed)[1]]
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_bf16_trains_on_fp32_masters_and_comes_back_as_bf16():
    def trained(dtype, **changes):
        return train(tiny_llama(dtype=dtype), examples(8), **changes)

    model, metrics = trained(jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.bfloat16)}
    assert [m.loss for m in metrics] == pytest.approx(
        [m.loss for m in trained(jnp.float32)[1]], rel=0.05
    )
    # Each step is too small for bf16 to show at a scale of about 1, their sum is not.
    longer, _ = trained(jnp.bfloat16, epochs=60, learning_rate=5e-4)
    before = tiny_llama(dtype=jnp.bfloat16).norm.get_value()
    assert jnp.mean(longer.norm.get_value() != before) > 0.5


@pytest.mark.parametrize("where", ["embedding", "norm"])
def test_a_loss_that_is_not_finite_names_step_and_examples(where):
    model = tiny_llama()
    variable = getattr(model, where)
    setattr(model, where, variable.replace(variable.get_value() * jnp.nan))
    data = examples(6)
    first, *_ = balanced_steps(
        data, examples_per_step=4, epochs=1, round_index=1, seed=1
    )
    ids = ", ".join(e.id for e in sorted(first, key=len, reverse=True))
    with pytest.raises(
        FloatingPointError, match=f"round 1, step 1: loss nan, .* examples: {ids}$"
    ):
        train(model, data)


def test_an_example_beyond_the_context_is_not_trained_on():
    model = tiny_llama()
    long = TrainingExample(id="x", prompt_tokens=(5,) * 128, answer_tokens=(EOS,))
    with pytest.raises(InputError, match="none of 1 examples is within 128 tokens"):
        train(model, [long])
