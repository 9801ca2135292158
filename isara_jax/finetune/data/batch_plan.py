"""Splits off the validation set, and plans the batches of every step."""

from collections.abc import Sequence

import numpy as np

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.packing import balanced_steps, pack_steps
from isara_jax.finetune.data.padding import BatchPlan, pad_steps, shuffled_steps
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.runtime import Mesh, platform_of

# The length of a packed row is a multiple of an attention kernel's block. On CPU the
# multiple lets rounds with similar examples share a compiled step.
CPU_MULTIPLE = 64
ACCELERATOR_MULTIPLE = 128

Examples = Sequence[TrainingExample]


def plan_batches(
    examples: Examples,
    *,
    config: FinetuneConfig,
    epochs: int,
    round_index: int,
    seed: int,
    mesh: Mesh,
) -> BatchPlan:
    """Draws the examples of every step, and packs or pads them into rows."""
    order = balanced_steps if config.train_packing == "on" else shuffled_steps
    steps = list(
        order(
            examples,
            examples_per_step=config.train_batch * config.accumulation,
            epochs=epochs,
            round_index=round_index,
            seed=seed,
        )
    )
    if config.train_packing == "off":
        return pad_steps(
            steps, rows=config.train_batch, micro_batches=config.accumulation
        )
    return pack_steps(
        steps,
        micro_batches=config.accumulation,
        groups=mesh.shape["data"],
        length=config.train_row_length,
        multiple=CPU_MULTIPLE if platform_of(mesh) == "cpu" else ACCELERATOR_MULTIPLE,
    )


def split_validation(
    examples: Examples, *, config: FinetuneConfig, round_index: int, seed: int
) -> tuple[Examples, Examples]:
    """Returns the training set, and a validation set drawn of the examples."""
    count = validation_count(len(examples), config=config)
    if not count:
        return examples, ()
    order = np.random.default_rng([seed, round_index]).permutation(len(examples))
    validation = set(order[:count].tolist())
    return (
        [one for index, one in enumerate(examples) if index not in validation],
        [one for index, one in enumerate(examples) if index in validation],
    )


def validation_count(examples: int, *, config: FinetuneConfig) -> int:
    """Returns the size of the validation set of so many examples.

    It is at least 1, and 0 without early stopping or with a single example.
    """
    if not config.early_stop_epochs or examples < 2:
        return 0
    return min(examples - 1, max(1, int(config.validation_share * examples)))


def steps_per_epoch(examples: int, *, config: FinetuneConfig) -> int:
    """Returns the optimizer steps of an epoch of so many examples."""
    trained = examples - validation_count(examples, config=config)
    return -(-trained // (config.train_batch * config.accumulation))
