"""The settings of a finetuning, AdamW, and the learning rate of every step.

The defaults are the paper's (PAPER.md 1, Fine-tuning). The learning rate is data of a
step, not part of the optimizer, so that all rounds share one compiled step.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from isara_jax.errors import InputError
from isara_jax.models.decoder import Remat

_AT_LEAST_ONE = ("epochs", "train_batch", "accumulation", "max_length")
_POSITIVE = ("learning_rate", "learning_rate_decay", "adam_epsilon", "clip_norm")
_NOT_NEGATIVE = ("weight_decay", "train_save_steps")
_BELOW_ONE = ("warmup", "adam_b1", "adam_b2")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How every round finetunes.

    Raises:
      InputError: a value is outside its range.
    """

    train_data: Literal["seeds_and_latest", "cumulative", "latest"] = field(
        default="seeds_and_latest",
        metadata={
            "help": "what a round trains on: the seeds and what it kept, the seeds "
            "and what all rounds so far kept, or only what it kept"
        },
    )
    start_from: Literal["previous", "base"] = field(
        default="previous",
        metadata={
            "help": "the model a round trains: the previous round's, or always --model"
        },
    )
    learning_rate: float = field(
        default=2e-5, metadata={"help": "highest learning rate of round 1"}
    )
    learning_rate_decay: float = field(
        default=0.5,
        metadata={"help": "factor on the learning rate from each round to the next"},
    )
    warmup: float = field(
        default=0.03,
        metadata={
            "help": "share of a round's steps in which the learning rate rises, at "
            "least one step unless 0; it then falls along a cosine"
        },
    )
    epochs: int = field(
        default=1, metadata={"help": "how often a round goes through its examples"}
    )
    train_batch: int = field(default=4, metadata={"help": "examples of a micro-batch"})
    accumulation: int = field(
        default=8,
        metadata={"help": "micro-batches of a step; 1 saves a copy of the gradients"},
    )
    max_length: int = field(
        default=2048,
        metadata={"help": "tokens of prompt and answer; what is longer is left out"},
    )
    adam_b1: float = field(
        default=0.9, metadata={"help": "decay of AdamW's first moment"}
    )
    adam_b2: float = field(
        default=0.95, metadata={"help": "decay of AdamW's second moment"}
    )
    adam_epsilon: float = field(
        default=1e-8, metadata={"help": "added to the root of AdamW's second moment"}
    )
    weight_decay: float = field(
        default=0.0, metadata={"help": "AdamW's weight decay, of every parameter"}
    )
    clip_norm: float = field(
        default=1.0, metadata={"help": "global norm to which gradients are clipped"}
    )
    remat: Remat = field(
        default="full",
        metadata={
            "help": "what the backward pass computes again to save memory: none, "
            "full (every layer) or dots (all but the matrix products)"
        },
    )
    train_save_steps: int = field(
        default=0,
        metadata={
            "help": "steps between two writes of the training state; 0: it is "
            "written only when the run is asked to stop"
        },
    )

    def __post_init__(self) -> None:
        rules = (
            (_AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
            (_POSITIVE, lambda value: 0 < value < math.inf, "above 0"),
            (_NOT_NEGATIVE, lambda value: 0 <= value < math.inf, "0 or more"),
            (_BELOW_ONE, lambda value: 0 <= value < 1, "from 0 to below 1"),
        )
        for names, holds, rule in rules:
            for name in names:
                value = getattr(self, name)
                if not holds(value):
                    raise InputError(f"--{name}={value!r}: must be {rule}")


def make_optimizer(config: FinetuneConfig) -> optax.GradientTransformation:
    """Clips by global norm, then AdamW at a learning rate of 1, without its sign.

    A step subtracts its learning rate times the updates (see `learning_rate_at`).
    """
    return optax.chain(
        clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(
            b1=config.adam_b1, b2=config.adam_b2, eps=config.adam_epsilon
        ),
        optax.add_decayed_weights(config.weight_decay),
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
    config: FinetuneConfig, *, round: int, step: int, steps: int
) -> float:
    """Returns the rate of a round's `step`, both counted from 1.

    Linear up to the peak over the warm-up, then a half cosine towards the step after
    the last: a round has a dozen steps, and none is spent at a rate of 0.
    """
    peak = config.learning_rate * config.learning_rate_decay ** (round - 1)
    warmup = math.ceil(config.warmup * steps)
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / (steps - warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
