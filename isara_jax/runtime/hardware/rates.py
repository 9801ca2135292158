"""What the machine can do at most: its memory's rate and that of its matrix products.

Both are measured, on one device and in the dtype that is asked for. What a program
reached is then told as a share of that.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
from jaxtyping import Array

from isara_jax.runtime.hardware.memory import free_bytes

# Bytes that no cache of a processor holds, and the width of a matrix product. What an
# accelerator is given takes it longer than to start it.
SIZES = {"cpu": (128 << 20, 1024)}
SIZES_ELSEWHERE = (1 << 30, 8192)
# What each measure may take, so that a run is not kept waiting.
SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Bytes of memory moved, and floating point operations done, in a second."""

    bytes_per_second: float
    flops_per_second: float

    def bound(self, *, bytes: float, flops: float) -> float:
        """Returns the seconds in which so much can be done at best."""
        return max(bytes / self.bytes_per_second, flops / self.flops_per_second)

    def times(self, devices: int) -> "Rates":
        """Returns the rates of so many devices together."""
        return Rates(
            bytes_per_second=devices * self.bytes_per_second,
            flops_per_second=devices * self.flops_per_second,
        )


@cache
def machine_rates(dtype: str) -> Rates:
    """Measures the first device, once a process.

    The rate of memory is that of reading on CPU, where a copy also waits for the
    system to hand out pages, and that of copying elsewhere.
    """
    size, width = SIZES.get(jax.default_backend(), SIZES_ELSEWHERE)
    free = free_bytes()
    rows = max(1, (size if free is None else min(size, free // 8)) // (4 * 4096))
    memory = jnp.ones((rows, 4096), jnp.float32)
    if jax.default_backend() == "cpu":
        moved = memory.nbytes * _calls_per_second(lambda: _product(memory, memory[0]))
    else:
        moved = 2 * memory.nbytes * _calls_per_second(lambda: _raised(memory))
    # Not ones here: with them an accelerator draws less power and runs faster.
    square = jnp.sin(jnp.arange(width**2, dtype=jnp.float32)).reshape(width, width)
    square = square.astype(dtype)
    products = _calls_per_second(lambda: _product(square, square))
    return Rates(bytes_per_second=moved, flops_per_second=2 * width**3 * products)


def mesh_rates(dtype: str, *, devices: int) -> Rates:
    """Returns the rates of so many devices; fake ones on CPU have those of one."""
    rates = machine_rates(dtype)
    return rates if jax.default_backend() == "cpu" else rates.times(devices)


def _calls_per_second(run: Callable[[], Array]) -> float:
    """Returns the best rate in some time; a first call compiles."""
    run().block_until_ready()
    best, end = 0.0, time.perf_counter() + SECONDS
    while not best or time.perf_counter() < end:
        begun = time.perf_counter()
        # Several calls in flight: else starting one would count as well.
        jax.block_until_ready([run() for _ in range(4)])
        best = max(best, 4 / (time.perf_counter() - begun))
    return best


@jax.jit
def _product(one: Array, other: Array) -> Array:
    return one @ other


@jax.jit
def _raised(array: Array) -> Array:
    return array + 1
