"""Which examples a finetuning holds out, and which rows each of its steps has."""

from collections.abc import Sequence

import numpy as np

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.batches import (
    Plan,
    TrainingExample,
    padded_plan,
    shuffled_steps,
)
from isara_jax.finetune.data.packing import balanced_steps, packed_plan
from isara_jax.runtime import Mesh

# A packed row's length is a multiple of what the machine's kernels take at a time; on
# CPU, of what lets rounds of like examples share a compiled step.
CPU_TILE = 64
ACCELERATOR_TILE = 128

Examples = Sequence[TrainingExample]


def make_plan(
    examples: Examples,
    *,
    config: FinetuneConfig,
    epochs: int,
    round_index: int,
    seed: int,
    mesh: Mesh,
) -> Plan:
    """Draws the steps of the epochs and lays their examples out in rows."""
    order = balanced_steps if config.train_packing == "on" else shuffled_steps
    steps = list(
        order(
            examples,
            examples_a_step=config.train_batch * config.accumulation,
            epochs=epochs,
            round_index=round_index,
            seed=seed,
        )
    )
    if config.train_packing == "off":
        return padded_plan(
            steps, rows=config.train_batch, micro_batches=config.accumulation
        )
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return packed_plan(
        steps,
        micro_batches=config.accumulation,
        groups=mesh.shape["data"],
        length=config.train_row_length,
        multiple=CPU_TILE if on_cpu else ACCELERATOR_TILE,
    )


def hold_out(
    examples: Examples, *, config: FinetuneConfig, round_index: int, seed: int
) -> tuple[Examples, Examples]:
    """Draws the examples that are only measured; returns the others, and them."""
    count = held_out_count(len(examples), config=config)
    if not count:
        return examples, ()
    order = np.random.default_rng([seed, round_index]).permutation(len(examples))
    held_out = set(order[:count].tolist())
    return (
        [one for at, one in enumerate(examples) if at not in held_out],
        [one for at, one in enumerate(examples) if at in held_out],
    )


def held_out_count(examples: int, *, config: FinetuneConfig) -> int:
    """Returns how many of so many examples are held out: one at least, if any is."""
    if not config.early_stop_epochs or examples < 2:
        return 0
    return min(examples - 1, max(1, int(config.validation_share * examples)))


def steps_an_epoch(examples: int, *, config: FinetuneConfig) -> int:
    """Returns the optimizer steps that so many examples take."""
    trained = examples - held_out_count(examples, config=config)
    return -(-trained // (config.train_batch * config.accumulation))
