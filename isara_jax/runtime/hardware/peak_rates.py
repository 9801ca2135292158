"""The peak rates of the machine: memory traffic and matrix products.

Both are measured, on one device and in one dtype. The throughput of a program is then
reported as a share of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
from jaxtyping import Array

from isara_jax.runtime.hardware.memory import free_bytes

# Bytes that exceed a processor's caches, and the width of a square matrix product. On
# an accelerator both take longer than a launch.
SIZES = {"cpu": (128 << 20, 1024)}
ACCELERATOR_SIZES = (1 << 30, 8192)
# The time of each measurement.
SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class PeakRates:
    """Bytes of memory traffic and floating point operations in a second."""

    bytes_per_second: float
    flops_per_second: float

    def bound(self, *, bytes: float, flops: float) -> float:
        """Returns a lower bound on the seconds for so many bytes and operations."""
        return max(bytes / self.bytes_per_second, flops / self.flops_per_second)

    def times(self, devices: int) -> "PeakRates":
        """Returns the rates of several such devices together."""
        return PeakRates(
            bytes_per_second=devices * self.bytes_per_second,
            flops_per_second=devices * self.flops_per_second,
        )


@cache
def device_peak_rates(dtype: str) -> PeakRates:
    """Measures the first device, once in a process.

    The memory's rate is that of a copy. On CPU it is that of reading, since a copy also
    waits for the system to allocate pages.
    """
    size, width = SIZES.get(jax.default_backend(), ACCELERATOR_SIZES)
    free = free_bytes()
    rows = max(1, (size if free is None else min(size, free // 8)) // (4 * 4096))
    memory = jnp.ones((rows, 4096), jnp.float32)
    if jax.default_backend() == "cpu":
        moved = memory.nbytes * _calls_per_second(lambda: _product(memory, memory[0]))
    else:
        moved = 2 * memory.nbytes * _calls_per_second(lambda: _raised(memory))
    # Not ones: with equal numbers an accelerator draws less power and runs faster.
    square = jnp.sin(jnp.arange(width**2, dtype=jnp.float32)).reshape(width, width)
    square = square.astype(dtype)
    products = _calls_per_second(lambda: _product(square, square))
    return PeakRates(bytes_per_second=moved, flops_per_second=2 * width**3 * products)


def mesh_peak_rates(dtype: str, *, devices: int) -> PeakRates:
    """Returns the rates of a mesh; CPU devices are parts of one and share its rates."""
    rates = device_peak_rates(dtype)
    return rates if jax.default_backend() == "cpu" else rates.times(devices)


def _calls_per_second(run: Callable[[], Array]) -> float:
    """Returns the best rate within `SECONDS`, after a call that compiles."""
    run().block_until_ready()
    best, end = 0.0, time.perf_counter() + SECONDS
    while not best or time.perf_counter() < end:
        begun = time.perf_counter()
        # Several calls are in flight, so that launching one does not count.
        jax.block_until_ready([run() for _ in range(4)])
        best = max(best, 4 / (time.perf_counter() - begun))
    return best


@jax.jit
def _product(one: Array, other: Array) -> Array:
    return one @ other


@jax.jit
def _raised(array: Array) -> Array:
    return array + 1
