"""The optimizers, and the learning rate schedule.

The learning rate is an argument of the step, not part of the optimizer, so that all
rounds share one compiled step.
"""

import math

import jax
import jax.numpy as jnp
import optax

from isara_jax.finetune.config import FinetuneConfig


def make_optimizer(config: FinetuneConfig) -> optax.GradientTransformation:
    """Returns clipping by global norm, AdamW or Adafactor, and weight decay.

    The updates are positive and for a learning rate of 1: a step subtracts its
    `learning_rate_at` times the updates. Gradients and parameters are fp32.
    """
    return optax.chain(
        clip_by_global_norm(config.clip_norm),
        _scaling(config),
        optax.add_decayed_weights(config.weight_decay),
    )


def _scaling(config: FinetuneConfig) -> optax.GradientTransformation:
    if config.optimizer == "adafactor":
        # Neither scaled by the parameters nor relative to the step: so its learning
        # rate is comparable to AdamW's.
        return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    return optax.scale_by_adam(
        b1=config.adam_b1,
        b2=config.adam_b2,
        eps=config.adam_epsilon,
        # The second moment stays in fp32, where small increments add up.
        mu_dtype=jnp.bfloat16 if config.master_dtype == "bfloat16" else None,
    )


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Clips by global norm, as `optax.clip_by_global_norm` does, in less memory.

    The gradients are multiplied by one factor, which XLA fuses into the moments'
    arithmetic. The select and the division of optax make a copy of all gradients.
    """

    def update(
        gradients: optax.Updates, state: optax.OptState, _: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        factor = jnp.minimum(1.0, limit / optax.tree.norm(gradients))
        return jax.tree.map(lambda g: g * factor, gradients), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def learning_rate_at(
    config: FinetuneConfig, *, round_index: int, step: int, steps: int
) -> float:
    """Returns the learning rate of a step; rounds and steps count from 1.

    It rises linearly to the peak over the warm-up, then falls along a half cosine that
    would reach 0 one step after the last: a round has a dozen steps, and none should
    have a learning rate of 0. The peak decays from round to round.
    """
    peak = config.learning_rate * config.learning_rate_decay ** (round_index - 1)
    warmup = math.ceil(config.warmup * steps)
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / (steps - warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
