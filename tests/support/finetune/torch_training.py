"""The losses of answers and steps of AdamW on torch, which ours are to be."""

import pytest
import torch


def answer_losses(twin, examples):
    """Returns -log p of every answer's tokens."""
    losses = []
    for example in examples:
        tokens = torch.tensor([example.prompt_tokens + example.answer_tokens])
        split = len(example.prompt_tokens)
        log_p = torch.log_softmax(twin(tokens).logits[0, split - 1 : -1], -1)
        losses.append(-log_p[range(len(log_p)), tokens[0, split:]])
    return losses


def assert_steps_are_torch_s(twin, examples, metrics, *, clip_norm):
    """Takes every step of the metrics on all examples, and compares what it tells."""
    optimizer = torch.optim.AdamW(twin.parameters(), betas=(0.9, 0.95), weight_decay=0)
    for step in metrics:
        optimizer.zero_grad()
        losses = torch.cat(answer_losses(twin, examples))
        losses.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), clip_norm)
        optimizer.param_groups[0]["lr"] = step.learning_rate
        optimizer.step()
        assert step.loss == pytest.approx(losses.mean().item(), rel=1e-4)
        assert step.gradient_norm == pytest.approx(norm.item(), rel=1e-4)
        assert step.tokens == len(losses)
