"""Loss, gradients and steps of finetuning an OPT against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tiny_opt import load_opt, relative_error, write_opt

from isara_jax.finetune.batches import Batch, TrainingExample, make_batch, shape_for
from isara_jax.finetune.loss import answer_loss
from isara_jax.finetune.settings import FinetuneConfig
from isara_jax.finetune.trainer import Hooks, finetune
from isara_jax.models.load import named_tensors
from isara_jax.runtime.mesh import make_mesh

VARIANTS = {
    "125m": {},
    "350m": {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
}
EXAMPLES = [
    TrainingExample(id="a", prompt_tokens=(5, 6, 7, 8), answer_tokens=(9, 10, 2)),
    TrainingExample(id="b", prompt_tokens=(11,), answer_tokens=(12, 13, 14, 15, 2)),
    TrainingExample(id="c", prompt_tokens=tuple(range(20, 38)), answer_tokens=(2,)),
    TrainingExample(id="d", prompt_tokens=(3, 4), answer_tokens=(50, 2)),
]
CONFIG = FinetuneConfig(
    learning_rate=1e-3,
    train_batch=4,
    accumulation=1,
    epochs=20,
    clip_norm=0.5,
    remat="none",
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_are_those_of_torch(tmp_path, variant):
    twin = write_opt(tmp_path, **VARIANTS[variant])
    model = load_opt(tmp_path)
    arrays = make_batch(
        EXAMPLES, shape=shape_for(EXAMPLES, rows=len(EXAMPLES), micro_batches=1)
    )
    batch = Batch(*(jnp.asarray(array[:, 0]) for array in arrays))
    loss, gradient = jax.jit(
        jax.value_and_grad(lambda model: answer_loss(model, batch, remat="none"))
    )(model)
    expected = torch.cat(answer_losses(twin)).sum()
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    gradients = dict(named_tensors(gradient))
    for name, parameter in twin.named_parameters():
        wanted = parameter.grad.numpy()
        # That of a key's bias is 0 but for rounding: it moves all scores alike.
        np.testing.assert_allclose(gradients[name], wanted, rtol=1e-3, atol=2e-4)
        if "k_proj.bias" not in name:
            assert relative_error(gradients[name], wanted) < 1e-4, name


def test_steps_are_those_of_torch(tmp_path):
    twin = write_opt(tmp_path)
    metrics = []
    trained = finetune(
        load_opt(tmp_path),
        EXAMPLES,
        config=CONFIG,
        round=1,
        seed=1,
        mesh=make_mesh(data=1, model=1),
        hooks=Hooks(on_step=metrics.append),
    )
    optimizer = torch.optim.AdamW(twin.parameters(), betas=(0.9, 0.95), weight_decay=0)
    assert len(metrics) == 20
    for step in metrics:
        optimizer.zero_grad()
        loss = torch.cat(answer_losses(twin)).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), CONFIG.clip_norm)
        optimizer.param_groups[0]["lr"] = step.learning_rate
        optimizer.step()
        assert step.loss == pytest.approx(loss.item(), rel=1e-4)
        assert step.gradient_norm == pytest.approx(norm.item(), rel=1e-4)
    ours = dict(named_tensors(trained))
    for name, parameter in twin.named_parameters():
        # A key's bias has a gradient of rounding errors, which AdamW makes steps of.
        if "k_proj.bias" not in name:
            assert relative_error(ours[name], parameter.detach().numpy()) < 1e-4, name


def answer_losses(twin):
    """Returns -log p of every answer's tokens."""
    losses = []
    for example in EXAMPLES:
        tokens = torch.tensor([example.prompt_tokens + example.answer_tokens])
        split = len(example.prompt_tokens)
        log_p = torch.log_softmax(twin(tokens).logits[0, split - 1 : -1], -1)
        losses.append(-log_p[range(len(log_p)), tokens[0, split:]])
    return losses
