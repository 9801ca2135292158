"""Lower bounds on the work of a program, and on its time.

The model needs 6 floating point operations for each parameter and trained token (4 for
each of a frozen base), 2 for each parameter and generated token, and causal attention.
Weights, caches and state are read and written. Recomputation by remat, padding and
collectives are not counted, so no machine is faster than the bound.
"""

from dataclasses import dataclass

import jax
import numpy as np

from isara_jax.engine import ModelSizes, decode_cost, model_sizes, prefill_cost
from isara_jax.fit.machines import Machine
from isara_jax.fit.request import FitRequest
from isara_jax.runtime import bytes_on_device


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations and bytes moved on one device, and the tokens of all devices."""

    flops: float
    bytes: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Lower bounds on the seconds of a call, by arithmetic and by memory traffic."""

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
    """Returns the lower bound on the time of the work."""
    return Bound(
        arithmetic=work.flops / machine.flops,
        memory=work.bytes / machine.bandwidth,
        tokens=work.tokens,
    )


def step_work(
    request: FitRequest, *, examples: int, length: int, micro_batches: int, state: int
) -> Work:
    """Returns the work of an optimizer step.

    Every micro-batch reads the weights twice, forward and backward. A step reads and
    writes the state. A frozen base needs no gradient of its own: 4 operations for each
    of its parameters, and 6 for each of the adapters'.

    Args:
      request: the model and how it is trained.
      examples: examples of a step.
      length: positions of each example.
      micro_batches: micro-batches of a step.
      state: bytes of the training state on one device.
    """
    sizes = model_sizes(request.weights)
    tokens = examples * length
    pairs = examples * int(_seen(length, sizes).sum())
    each = 6 * (sizes.body + sizes.head)
    if request.base is not None:
        adapters = sum(leaf.size for leaf in jax.tree.leaves(request.trainable))
        each = 4 * (sizes.body + sizes.head) + 6 * adapters
    flops = each * tokens + 3 * sizes.pair * pairs
    return Work(
        flops=flops / request.mesh.size,
        bytes=2 * micro_batches * _trained_on_bytes(request, sizes) + 2 * state,
        tokens=tokens,
    )


def chunk_work(request: FitRequest, *, width: int, end: int) -> Work:
    """Returns the work of prefilling the last `width` of a prompt's `end` positions."""
    sizes, width = model_sizes(request.weights), min(width, end)
    cost = prefill_cost(sizes, start=end - width, end=end)
    cached = end * sizes.position_bytes
    return Work(
        flops=cost.flops / request.mesh.size,
        bytes=_weight_bytes(request, sizes) + cached / request.mesh.size,
        tokens=width,
    )


def token_work(request: FitRequest, *, rows: int, length: int, beams: int = 1) -> Work:
    """Returns the work of decoding one token in each row of `length` positions.

    The beams of a row read its cached positions together.
    """
    sizes = model_sizes(request.weights)
    cost = decode_cost(
        sizes, lengths=np.full(rows, length), new=np.ones(rows, np.int64), shared_len=0
    )
    cached = cost.bytes - (sizes.body + sizes.head) * sizes.itemsize
    return Work(
        flops=beams * cost.flops / request.mesh.size,
        bytes=_weight_bytes(request, sizes) + cached / request.mesh.size,
        tokens=rows * beams,
    )


def _trained_on_bytes(request: FitRequest, sizes: ModelSizes) -> float:
    """Returns the bytes of the weights in a step, which may be quantised."""
    if request.base is None:
        return _weight_bytes(request, sizes)
    share = bytes_on_device(request.base) / bytes_on_device(request.weights)
    return _weight_bytes(request, sizes) * share


def _weight_bytes(request: FitRequest, sizes: ModelSizes) -> float:
    """Returns the bytes of the weights that a device multiplies with.

    The devices of `data` hold shards of them, and each gathers the whole.
    """
    return (sizes.body + sizes.head) * sizes.itemsize / request.mesh.shape["model"]


def _seen(length: int, sizes: ModelSizes) -> np.ndarray:
    positions = np.arange(length) + 1
    return positions if sizes.window is None else np.minimum(positions, sizes.window)
