"""The settings of a finetuning.

The defaults are the paper's (docs/method.md, "The paper preset").
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from isara_jax.errors import FieldError
from isara_jax.models import Remat

_AT_LEAST_ONE = ("epochs", "train_batch", "accumulation", "max_length")
_POSITIVE = ("learning_rate", "learning_rate_decay", "adam_epsilon", "clip_norm")
_NOT_NEGATIVE = ("weight_decay", "train_row_length", "early_stop_epochs")
_BELOW_ONE = ("warmup", "adam_b1", "adam_b2")
_SHARES = ("validation_share",)
_FACTORS = ("spike_factor",)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How every round finetunes.

    Raises:
      FieldError: a value is outside its range.
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
            "help": "the model a round trains: the previous round's, or always `model`"
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
    train_packing: Literal["on", "off"] = field(
        default="on",
        metadata={
            "help": "on: several examples a row, none of which sees another; off: "
            "each has a row of its own, padded to the longest. A step has as many "
            "examples either way"
        },
    )
    train_row_length: int = field(
        default=0,
        metadata={
            "help": "positions of a packed row, or as many as the longest example "
            "needs; 0: what is cheapest for the examples of a round"
        },
    )
    max_length: int = field(
        default=2048,
        metadata={"help": "tokens of prompt and answer; what is longer is left out"},
    )
    optimizer: Literal["adamw", "adafactor"] = field(
        default="adamw",
        metadata={
            "help": "adafactor keeps two vectors in place of each large matrix's "
            "moments; its updates are as large as AdamW's at the same learning rate"
        },
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
        default=0.0, metadata={"help": "decoupled weight decay, of every parameter"}
    )
    clip_norm: float = field(
        default=1.0, metadata={"help": "global norm to which gradients are clipped"}
    )
    master_dtype: Literal["float32", "bfloat16"] = field(
        default="float32",
        metadata={
            "help": "of the parameters between steps; bfloat16 saves half of their "
            "and of the first moment's memory, and rounds updates stochastically"
        },
    )
    remat: Remat = field(
        default="full",
        metadata={
            "help": "what the backward pass computes again to save memory: none, "
            "full (every layer) or dots (all but the matrix products)"
        },
    )

    spike_factor: float = field(
        default=0.0,
        metadata={
            "help": "a step whose loss is above so many times the median of the "
            "last 16 is not taken, and the third in a row ends the run; 0: all are"
        },
    )
    early_stop_epochs: int = field(
        default=0,
        metadata={
            "help": "stop after so many epochs in which the loss of held-out examples "
            "has not fallen, and keep the best epoch's model; 0: hold none out"
        },
    )
    validation_share: float = field(
        default=0.1,
        metadata={
            "help": "share of a round's examples that `early_stop_epochs` holds out"
        },
    )

    def __post_init__(self) -> None:
        rules = (
            (_AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
            (_POSITIVE, lambda value: 0 < value < math.inf, "above 0"),
            (_NOT_NEGATIVE, lambda value: 0 <= value < math.inf, "0 or more"),
            (_BELOW_ONE, lambda value: 0 <= value < 1, "from 0 to below 1"),
            (_SHARES, lambda value: 0 < value < 1, "between 0 and 1"),
            (_FACTORS, lambda value: value == 0 or value > 1, "0 or above 1"),
        )
        for names, holds, rule in rules:
            for name in names:
                value = getattr(self, name)
                if not holds(value):
                    raise FieldError(name, value, f"must be {rule}")
