"""The optimizers, and the learning rate of every step.

The learning rate is data of a step, not part of the optimizer, so that all rounds share
one compiled step.
"""

import math

import jax
import jax.numpy as jnp
import optax

from isara_jax.finetune.config import FinetuneConfig


def make_optimizer(config: FinetuneConfig) -> optax.GradientTransformation:
    """Clips by global norm, then AdamW or Adafactor at a learning rate of 1.

    Their sign is left out: a step subtracts its learning rate times the updates (see
    `learning_rate_at`). Gradients and parameters come in fp32.
    """
    return optax.chain(
        clip_by_global_norm(config.clip_norm),
        _scaling(config),
        optax.add_decayed_weights(config.weight_decay),
    )


def _scaling(config: FinetuneConfig) -> optax.GradientTransformation:
    if config.optimizer == "adafactor":
        # Neither scaled by the parameters nor relative to the step, so that a learning
        # rate means what it means to AdamW.
        return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    narrow = config.master_dtype == "bfloat16"
    return optax.scale_by_adam(
        b1=config.adam_b1,
        b2=config.adam_b2,
        eps=config.adam_epsilon,
        # The second moment stays in fp32, where small steps add up.
        mu_dtype=jnp.bfloat16 if narrow else None,
    )


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scales the gradients down to the norm, as `optax.clip_by_global_norm` does.

    By one factor, which XLA folds into the moments' arithmetic: optax's select and
    division are computed into a second copy of all gradients.
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
    """Returns the rate of a round's `step`, both counted from 1.

    Linear up to the peak over the warm-up, then a half cosine towards the step after
    the last: a round has a dozen steps, and none is spent at a rate of 0.
    """
    peak = config.learning_rate * config.learning_rate_decay ** (round_index - 1)
    warmup = math.ceil(config.warmup * steps)
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / (steps - warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
