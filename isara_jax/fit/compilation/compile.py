"""Compiles a program and says whether it fits, with the compiler's own numbers."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax

from isara_jax.errors import first_line
from isara_jax.fit.bounds import Bound, bound_on
from isara_jax.fit.compilation.collectives import collective_bytes
from isara_jax.fit.machines import Machine
from isara_jax.fit.program import Program

Verdict = Literal["fits", "does not fit", "does not compile"]

# How the compiler for TPU says that memory lacks: in G, M or K of powers of two.
USED = (
    re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm"),
    re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)"),
)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The bytes of a program on a device, as the compiler plans them.

    `arguments` that are reused for results are counted once.
    """

    arguments: int
    temporaries: int
    results: int
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.results + self.code


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a program. `needed` are bytes on a device, all that lies there.

    `memory`, `collectives`, the bytes of a device by their kind, and `flops`, counted
    by the compiler with each loop run once, are there if it was compiled.
    """

    program: Program
    verdict: Verdict
    bound: Bound
    seconds: float
    needed: int | None = None
    available: int | None = None
    memory: Memory | None = None
    collectives: Mapping[str, int] | None = None
    flops: float | None = None
    said: str = ""


def judge(program: Program, *, machine: Machine) -> Outcome:
    """Compiles the program for the machine."""
    begun = time.perf_counter()
    bound = bound_on(machine, program.work)
    beside = sum(program.beside.values())
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        used = next(filter(None, (form.search(str(error)) for form in USED)), None)
        lacks = "RESOURCE_EXHAUSTED" in str(error)
        return Outcome(
            program=program,
            verdict="does not fit" if lacks else "does not compile",
            bound=bound,
            seconds=time.perf_counter() - begun,
            needed=beside + _bytes(used[1], used[2]) if used else None,
            available=_bytes(used[3], used[4]) if used else machine.memory,
            said=first_line(error),
        )
    memory = _memory_of(compiled)
    needed = memory.total + beside
    fits = machine.memory is None or needed <= machine.memory
    return Outcome(
        program=program,
        verdict="fits" if fits else "does not fit",
        bound=bound,
        seconds=time.perf_counter() - begun,
        needed=needed,
        available=machine.memory,
        memory=memory,
        collectives=collective_bytes(compiled.as_text() or ""),
        flops=(compiled.cost_analysis() or {}).get("flops"),
    )


def _memory_of(compiled: jax.stages.Compiled) -> Memory:
    found: Any = compiled.memory_analysis()
    return Memory(
        arguments=found.argument_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        results=found.output_size_in_bytes - found.alias_size_in_bytes,
        code=found.generated_code_size_in_bytes,
    )


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * UNITS[unit])
