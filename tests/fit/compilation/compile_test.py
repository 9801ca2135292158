"""What is said of a program, by what the compiler says."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from isara_jax.fit.bounds import Work
from isara_jax.fit.compilation.compile import compile_and_check
from isara_jax.fit.machines.machine import machine_of
from isara_jax.fit.machines.tpu_slices import CHIPS, Slice
from isara_jax.fit.program import Program
from isara_jax.runtime.mesh import make_mesh, sharding_for

WORK = Work(flops=2e9, bytes=1e9, tokens=10)
SIDE = 512
ARRAY = SIDE * SIDE * 4


def program_of(lower, *, resident=0):
    return Program(
        name="a product",
        unit="call",
        argument_bytes={"x": ARRAY},
        resident_bytes={"y": resident},
        work=WORK,
        lower=lower,
    )


def product(rows, *, devices):
    mesh = make_mesh(data=1, model=1, devices=devices[:1])
    shape = (rows, SIDE)
    place = sharding_for(("time", "time"), shape, mesh)
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
    return jax.jit(lambda x: jnp.sort(x + 1, axis=0) * x).lower(x)


@pytest.fixture
def machine(fit_request):
    return lambda memory: fit_request(memory=memory).machine


@pytest.mark.parametrize(
    ("memory", "resident", "verdict"),
    [
        (None, 0, "fits"),
        (6 * ARRAY, 0, "fits"),
        (ARRAY, 0, "does not fit"),
        (6 * ARRAY, 5 * ARRAY, "does not fit"),
    ],
)
def test_what_lies_on_a_device_is_set_against_its_memory(
    machine, memory, resident, verdict
):
    program = program_of(
        lambda: product(SIDE, devices=jax.devices()), resident=resident
    )
    outcome = compile_and_check(program, machine=machine(memory))
    assert outcome.verdict == verdict
    assert outcome.available == memory
    assert outcome.memory.arguments == ARRAY
    assert outcome.memory.results == ARRAY
    assert outcome.needed == outcome.memory.total + resident
    assert outcome.collectives == {}


def test_the_bound_is_the_slower_of_arithmetic_and_memory(machine):
    program = program_of(lambda: product(SIDE, devices=jax.devices()))
    bound = compile_and_check(program, machine=machine(None)).bound
    assert (bound.arithmetic, bound.memory, bound.seconds) == (2.0, 1.0, 2.0)
    assert bound.tokens_per_second == 5.0


def refused(message):
    def lower():
        raise jax.errors.JaxRuntimeError(message)

    return lower


@pytest.mark.parametrize(
    ("message", "verdict", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 63.50G of "
            "30.75G hbm. Exceeded hbm capacity by 32.75G.\n\nTotal hbm usage >= 65G",
            "does not fit",
            63.5 * 2**30 + 7,
            30.75 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (3.00T) exceeds available HBM (15.75G).",
            "does not fit",
            3 * 2**40 + 7,
            15.75 * 2**30,
        ),
        ("RESOURCE_EXHAUSTED: of something", "does not fit", None, 99),
        ("UNIMPLEMENTED: that kernel", "does not compile", None, 99),
    ],
)
def test_what_the_compiler_refuses(machine, message, verdict, needed, available):
    outcome = compile_and_check(
        program_of(refused(message), resident=7), machine=machine(99)
    )
    assert (outcome.verdict, outcome.needed) == (verdict, needed)
    assert outcome.available == available
    assert outcome.compiler_message == message.partition("\n")[0]
    assert outcome.memory is None


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not for this platform"
)
@pytest.mark.parametrize("kind", CHIPS)
def test_the_compiler_has_the_memory_of_the_table(kind):
    machine = machine_of(Slice(kind=kind, chips=4))
    # The machine's own number is out of the way, to hear the compiler's.
    other = dataclasses.replace(machine, memory=None)
    program = program_of(lambda: product(1 << 30, devices=machine.devices))
    outcome = compile_and_check(program, machine=other)
    assert outcome.verdict == "does not fit"
    assert outcome.available == pytest.approx(machine.memory, rel=1e-3)
