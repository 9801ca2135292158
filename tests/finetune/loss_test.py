"""The loss and its gradient against plain arithmetic, and against torch."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import tiny_llama, torch_llama
from torch_training import answer_losses
from training import EXAMPLES as FOUR, collate_padded
from whole_rows import logits_of

from isara_jax.finetune.data.collate import TrainBatch
from isara_jax.finetune.data.padding import padded_shape
from isara_jax.finetune.loss import answer_loss, cross_entropy
from isara_jax.models.checkpoints.load import named_tensors

EXAMPLES = FOUR[:3]


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def micro_batch(examples=EXAMPLES, *, rows=4):
    shape = padded_shape(examples, rows=rows, micro_batches=1)
    return TrainBatch(
        *(jnp.asarray(array[:, 0]) for array in collate_padded(examples, shape=shape))
    )


@functools.partial(jax.jit, static_argnames=("remat", "chunk"))
def value_and_gradient(model, batch, *, remat="none", chunk=512):
    def loss(model):
        return answer_loss(model, batch, remat=remat, chunk=chunk)

    return jax.value_and_grad(loss)(model)


def assert_same(got, expected):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert jnp.linalg.norm(one - other) <= 1e-5 * jnp.linalg.norm(other)


def test_the_loss_is_that_of_the_answers_alone(model):
    expected = 0.0
    for example in EXAMPLES:
        tokens = example.prompt_tokens + example.answer_tokens
        log_p = np.asarray(jax.nn.log_softmax(logits_of(model, [tokens])[0]))
        for at in range(len(example.prompt_tokens), len(example)):
            expected -= log_p[at - 1, tokens[at]]
    loss, _ = value_and_gradient(model, micro_batch())
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_what_has_no_weight_changes_nothing(model):
    batch = micro_batch()
    padding = batch.segments == 0
    filling = batch.loss_mask == 0
    changed = batch._replace(
        tokens=jnp.where(padding, 50, batch.tokens),
        labels=jnp.where(filling, 60, batch.labels),
        label_positions=jnp.where(filling, 3, batch.label_positions),
    )
    assert_same(value_and_gradient(model, changed), value_and_gradient(model, batch))


@pytest.mark.parametrize("chunk", [1, 12])
def test_chunks_of_the_head_change_nothing(model, chunk):
    whole = value_and_gradient(model, micro_batch())
    assert_same(value_and_gradient(model, micro_batch(), chunk=chunk), whole)


def test_logits_never_exist_whole(model):
    rows, positions = 8, 512
    hidden = jnp.ones((rows, positions, model.config.width))
    labels = jnp.zeros((rows, positions), jnp.int32)

    def loss(hidden, chunk):
        loss_mask = jnp.ones(labels.shape)
        return cross_entropy(
            model, hidden, labels=labels, loss_mask=loss_mask, chunk=chunk
        )

    def temporary_bytes(chunk):
        program = jax.jit(jax.grad(loss), static_argnums=1).lower(hidden, chunk)
        return program.compile().memory_analysis().temp_size_in_bytes

    logits = 4 * labels.size * model.config.vocab_size
    assert temporary_bytes(chunk=rows * positions) > logits
    assert temporary_bytes(chunk=512) < logits


def test_the_compiled_step_has_no_logits_of_all_positions(model):
    def largest(chunk):
        batch = micro_batch(rows=32)
        text = value_and_gradient.lower(model, batch, chunk=chunk).compile().as_text()
        shapes = [
            [int(size) for size in shape.split(",")]
            for shape in re.findall(r"f32\[([\d,]+)\]", text)
        ]
        vocabulary = model.config.vocab_size
        return max(math.prod(s) // vocabulary for s in shapes if vocabulary in s)

    positions = 32 * 16
    assert largest(chunk=positions) == positions
    # The table of the embedding is as large as the logits of its width.
    assert largest(chunk=64) == 64


def test_a_head_that_is_not_trained_costs_no_gradient(model):
    hidden = jnp.ones((4, 64, model.config.width))
    labels = jnp.zeros((4, 64), jnp.int32)

    def loss(model, hidden):
        loss_mask = jnp.ones(labels.shape)
        return cross_entropy(
            model, hidden, labels=labels, loss_mask=loss_mask, chunk=64
        )

    def products(argument):
        program = (
            jax.jit(jax.value_and_grad(loss, argument)).lower(model, hidden).compile()
        )
        return len(re.findall(r" dot\(|custom-call\(.*matmul", program.as_text()))

    def by_hidden(model):
        return jax.jit(jax.grad(loss, 1))(model, hidden)

    assert products(1) == 2 < products((0, 1))
    both = jax.jit(jax.grad(loss, (0, 1)))(model, hidden)
    np.testing.assert_allclose(by_hidden(model), both[1], rtol=1e-5)


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_nothing(model, remat):
    kept = value_and_gradient(model, micro_batch(), remat="none")
    assert_same(value_and_gradient(model, micro_batch(), remat=remat), kept)


def test_loss_and_gradient_are_those_of_torch(model):
    twin = torch_llama(model)
    expected = sum(losses.sum() for losses in answer_losses(twin, EXAMPLES))
    expected.backward()
    loss, gradient = value_and_gradient(model, micro_batch())
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    gradients = dict(named_tensors(gradient))
    for name, parameter in twin.named_parameters():
        wanted = parameter.grad.numpy()
        error = np.linalg.norm(gradients[name] - wanted) / np.linalg.norm(wanted)
        assert error < 1e-4, name
