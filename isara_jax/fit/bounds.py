"""What a program must compute and move at least, and the time that this takes.

Counted is what the mathematics needs: 6 operations a parameter and trained token (4 of
a frozen base), 2 a parameter and written one, causal attention, weights and state read
and written. What remat computes twice, padding and collectives do not count, so that no
machine is faster.
"""

from dataclasses import dataclass

import jax
import numpy as np

from isara_jax.engine import ModelSizes, decode_cost, model_sizes, prefill_cost
from isara_jax.fit.machines import Machine
from isara_jax.fit.request import FitRequest, bytes_on_device


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations and bytes of memory on a device, and the tokens of all devices."""

    flops: float
    bytes: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The seconds that a program takes at least, by what it computes and moves."""

    arithmetic: float
    memory: float
    tokens: int

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def bound_on(machine: Machine, work: Work) -> Bound:
    """Returns the time that the work takes a device at least."""
    return Bound(
        arithmetic=work.flops / machine.flops,
        memory=work.bytes / machine.bandwidth,
        tokens=work.tokens,
    )


def step_work(
    setting: FitRequest, *, examples: int, length: int, micro_batches: int, state: int
) -> Work:
    """Trains on examples of `length` positions; `state` are its bytes on a device.

    Every micro-batch reads the weights twice, forward and backward, and a step reads
    and writes the state. Of a frozen base no gradient is computed: 4 operations a
    parameter, and 6 for each of the adapters'.
    """
    sizes = model_sizes(setting.weights)
    tokens = examples * length
    pairs = examples * int(_seen(length, sizes).sum())
    each = 6 * (sizes.body + sizes.head)
    if setting.base is not None:
        adapters = sum(leaf.size for leaf in jax.tree.leaves(setting.trained))
        each = 4 * (sizes.body + sizes.head) + 6 * adapters
    flops = each * tokens + 3 * sizes.pair * pairs
    return Work(
        flops=flops / setting.mesh.size,
        bytes=2 * micro_batches * _multiplied(setting, sizes) + 2 * state,
        tokens=tokens,
    )


def chunk_work(setting: FitRequest, *, width: int, end: int) -> Work:
    """Runs the last `width` positions of a prompt that has `end` of them."""
    sizes, width = model_sizes(setting.weights), min(width, end)
    cost = prefill_cost(sizes, start=end - width, end=end)
    return Work(
        flops=cost.flops / setting.mesh.size,
        bytes=_weights(setting, sizes) + end * sizes.position_bytes / setting.mesh.size,
        tokens=width,
    )


def rows_work(setting: FitRequest, *, rows: int, length: int) -> Work:
    """Runs whole prompts."""
    sizes = model_sizes(setting.weights)
    cost = prefill_cost(sizes, start=0, end=length)
    cached = rows * length * sizes.position_bytes
    return Work(
        flops=rows * cost.flops / setting.mesh.size,
        bytes=_weights(setting, sizes) + cached / setting.mesh.size,
        tokens=rows * length,
    )


def token_work(setting: FitRequest, *, rows: int, length: int, beams: int = 1) -> Work:
    """Writes one token more in every row, each of which has `length` positions.

    Beams of a row read its positions together.
    """
    sizes = model_sizes(setting.weights)
    cost = decode_cost(
        sizes, lengths=np.full(rows, length), new=np.ones(rows, np.int64), shared_len=0
    )
    cached = cost.bytes - (sizes.body + sizes.head) * sizes.itemsize
    return Work(
        flops=beams * cost.flops / setting.mesh.size,
        bytes=_weights(setting, sizes) + cached / setting.mesh.size,
        tokens=rows * beams,
    )


def _multiplied(setting: FitRequest, sizes: ModelSizes) -> float:
    """The bytes of the weights that are trained on, which may be quantised."""
    if setting.base is None:
        return _weights(setting, sizes)
    narrower = bytes_on_device(setting.base) / bytes_on_device(setting.weights)
    return _weights(setting, sizes) * narrower


def _weights(setting: FitRequest, sizes: ModelSizes) -> float:
    """The bytes of the weights that a device multiplies with.

    The devices of `data` hold parts of them, and each of them needs the whole.
    """
    return (sizes.body + sizes.head) * sizes.itemsize / setting.mesh.shape["model"]


def _seen(length: int, sizes: ModelSizes) -> np.ndarray:
    positions = np.arange(length) + 1
    return positions if sizes.window is None else np.minimum(positions, sizes.window)
