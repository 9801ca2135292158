"""The lines that describe a request and the outcome of its programs."""

from collections.abc import Iterator, Sequence

import jax

from isara_jax.fit.compilation import Outcome
from isara_jax.fit.nearest_fit import NearestFit
from isara_jax.fit.request import FitRequest

GIB = 2**30


def heading(request: FitRequest, *, name: str) -> str:
    """Describes the model, the machine and the mesh of a request."""
    mesh, memory = request.mesh, request.machine.memory
    held = "unknown memory" if memory is None else f"{memory / GIB:.2f} GiB"
    count = sum(leaf.size for leaf in jax.tree.leaves(request.weights))
    return (
        f"{name}: {count / 1e9:.2f}B parameters in {request.dtype}, "
        f"on {request.machine.name}: {mesh.size} devices of {held} each, "
        f"{mesh.shape['data']} of data x {mesh.shape['model']} of model"
    )


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """Yields the lines on a program; bytes are those on one device."""
    program, bound = outcome.program, outcome.bound
    yield f"{program.name}: {outcome.verdict}{_needed(outcome)}"
    if outcome.compiler_message:
        yield f"    the compiler: {outcome.compiler_message}"
    sizes = [*program.argument_bytes.items(), *program.resident_bytes.items()]
    if outcome.memory is not None:
        sizes.append(("activations and temporaries", outcome.memory.temporaries))
        sizes.append(("the program itself", outcome.memory.code))
    yield "    GiB: " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in sizes)
    if outcome.collectives is not None:
        exchanged = ", ".join(
            f"{kind} {size / GIB:.2f}" for kind, size in outcome.collectives.items()
        )
        yield f"    GiB that a device exchanges a {program.unit}: {exchanged or 'none'}"
    yield (
        f"    at least {_seconds(bound.seconds)} a {program.unit} "
        f"({_seconds(bound.arithmetic)} of arithmetic, {_seconds(bound.memory)} of "
        f"memory), so at most {bound.tokens_per_second:,.0f} tokens a second"
    )
    counted = (
        f"; the compiler counts {outcome.flops / 1e12:.2f} TFLOP a device, each loop "
        f"once, to {program.work.flops / 1e12:.2f} that are needed"
        if outcome.flops
        else ""
    )
    yield f"    compiled in {outcome.seconds:.0f} s{counted}"


def nearest_line(found: NearestFit | None, *, prefix: str = "") -> str:
    """Describes the changes that make a request fit; `prefix` precedes each field."""
    if found is None:
        return "no setting was found that fits"
    needed = max(outcome.needed or 0 for outcome in found.outcomes)
    changes = (f"{prefix}{name}={value}" for name, value in found.changes.items())
    return (
        f"the nearest that fits, by compiling it ({needed / GIB:.2f} GiB): "
        + " ".join(changes)
    )


def table_row(cells: Sequence[str]) -> str:
    """Returns a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _needed(outcome: Outcome) -> str:
    if outcome.needed is None:
        return ""
    of = "" if outcome.available is None else f" of {outcome.available / GIB:.2f}"
    return f", {outcome.needed / GIB:.2f}{of} GiB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"
