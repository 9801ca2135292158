"""llama.cpp through llama-cpp-python, in a process of its own.

It reads the GGUF file as it is, Q4_1 where ours and transformers have that in fp32.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.generation.workloads import (
    NotMeasured,
    Runner,
    Timing,
    Workload,
    make_workload,
)

# What OpenMP's threads do while they wait for each other. By default they spin for some
# time, which is faster on an idle machine; beside other load llama.cpp was seen to
# decode 20 times slower so. Its policy `active` would spin on into the others' turns.
POLICIES = (None, "passive")

_STARTED: dict[str, Any] = {}


class LlamaCppPeer:
    """A GGUF file in llama.cpp, with a thread a core.

    Raises:
      NotMeasured: llama-cpp-python is not installed, or the model is no GGUF file.
    """

    def __init__(self, path: Path, *, slots: int):
        if find_spec("llama_cpp") is None:
            raise NotMeasured(
                "llama.cpp is not installed (pip install --editable '.[bench]')"
            )
        if path.suffix != ".gguf":
            raise NotMeasured("llama.cpp reads GGUF files only")
        quantisation = path.stem.rpartition(".")[2] if "." in path.stem else "GGUF"
        self.name = f"llama.cpp {quantisation}"
        self.process = _faster([_process(path, slots, policy) for policy in POLICIES])

    def runners(self, workload: Workload) -> dict[str, Runner]:
        """One way, greedily.

        Raises:
          NotMeasured: the workload has rules, of which llama.cpp lacks one.
        """
        if workload.rules is not None:
            raise NotMeasured("llama.cpp has no rule against repeated n-grams")
        return {self.name: lambda workload: self.write(workload)[0]}

    def write(self, workload: Workload) -> tuple[Timing, list[list[int]]]:
        """Does a workload; returns what was written too."""
        return self.process.submit(_write, workload).result()


def _process(path: Path, slots: int, policy: str | None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, get_context("spawn"), initializer=_start, initargs=(path, slots, policy)
    )


def _start(path: Path, slots: int, policy: str | None) -> None:
    """Loads llama.cpp after the policy is set: OpenMP reads it only then."""
    if policy is not None:
        os.environ["OMP_WAIT_POLICY"] = policy
    from benchmarks.peers.llama_cpp_slots import LlamaCpp

    threads = len(os.sched_getaffinity(0))
    _STARTED["model"] = LlamaCpp(path, slots=slots, threads=threads)


def _write(workload: Workload) -> tuple[Timing, list[list[int]]]:
    return _STARTED["model"].write(workload)


def _faster(processes: list[ProcessPoolExecutor]) -> ProcessPoolExecutor:
    """Keeps the process that does a small workload sooner; ends the others."""
    small = make_workload("decode1", vocabulary=1000, shrink=8)
    seconds = {}
    for process in processes:
        process.submit(_write, small).result()
        timing, _ = process.submit(_write, small).result()
        seconds[process] = timing.seconds
    best = min(processes, key=seconds.__getitem__)
    for process in processes:
        if process is not best:
            process.shutdown()
    return best
