"""Sides with random weights, each in a process of its own that is gone before the next.

On an accelerator JAX and torch keep the memory that they once took; side by side they
would starve each other.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from benchmarks.generation.comparison import OURS, Comparison
from benchmarks.generation.workloads import make_workload, value_of

SIDES = (OURS, "transformers")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What each side measures: the workloads, the model's shape, the turns."""

    shape: str
    dtype: str
    workloads: tuple[str, ...]
    repeats: int
    slots: int
    shrink: int


def compare_in_processes(job: Job, *, peers: bool) -> list[Comparison]:
    """Measures the sides one after another; `peers` says whether there are others."""
    comparisons = [Comparison(workload=name, measure="") for name in job.workloads]
    for side in SIDES if peers else SIDES[:1]:
        with ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_ready, initargs=(side,)
        ) as process:
            found = process.submit(_measure, side, job).result()
        for comparison, more in zip(comparisons, found, strict=True):
            comparison.join(more)
    return comparisons


def _ready(side: str) -> None:
    """Leaves the accelerator to the side whose process this is."""
    if side == OURS:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    else:
        os.environ["JAX_PLATFORMS"] = "cpu"


def _measure(side: str, job: Job) -> list[Comparison]:
    """Does every workload once unmeasured, which compiles, and then in turns."""
    from benchmarks.shapes import SHAPES, random_llama

    if side == OURS:
        from benchmarks.peers.engine import EngineSide

        ours = EngineSide(random_llama(job.shape, dtype=job.dtype), slots=job.slots)
        run, shares = ours.run, ours.shares
    else:
        from benchmarks.peers.transformers_peer import random_weights

        run, shares = random_weights(SHAPES[job.shape], dtype=job.dtype).run, dict
    comparisons = []
    for name in job.workloads:
        workload = make_workload(
            name, vocabulary=SHAPES[job.shape].vocab_size, shrink=job.shrink
        )
        comparison = Comparison(workload=name, measure=workload.measure)
        run(workload)
        shares()  # those of the turn that is not measured
        for _ in range(job.repeats):
            comparison.add(side, value_of(workload, run(workload)), shares=shares())
        comparisons.append(comparison)
    return comparisons
