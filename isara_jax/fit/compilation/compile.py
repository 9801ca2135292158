"""Compiles a program ahead of time and checks whether it fits a machine."""

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

# What XLA for TPU writes if memory is exhausted, in units of powers of two.
USED = (
    re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm"),
    re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)"),
)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The bytes of a compiled program on one device.

    Arguments that are donated to results count once.
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
    """The outcome of compiling a program; bytes and operations are those of one device.

    `needed` includes the arrays that are resident beside the program. `memory`,
    `collectives` (bytes by kind) and `flops` are there if the program was compiled;
    the compiler counts `flops` with each loop run once. `seconds` is compilation time.
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
    compiler_message: str = ""


def compile_and_check(program: Program, *, machine: Machine) -> Outcome:
    """Compiles the program and compares its memory with the machine's."""
    begun = time.perf_counter()
    bound = bound_on(machine, program.work)
    resident = sum(program.resident_bytes.values())
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        used = next(filter(None, (form.search(str(error)) for form in USED)), None)
        is_exhausted = "RESOURCE_EXHAUSTED" in str(error)
        return Outcome(
            program=program,
            verdict="does not fit" if is_exhausted else "does not compile",
            bound=bound,
            seconds=time.perf_counter() - begun,
            needed=resident + _bytes(used[1], used[2]) if used else None,
            available=_bytes(used[3], used[4]) if used else machine.memory,
            compiler_message=first_line(error),
        )
    memory = _memory_of(compiled)
    needed = memory.total + resident
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
