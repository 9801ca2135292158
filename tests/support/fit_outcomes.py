"""What became of a program that nobody has compiled."""

from isara_jax.fit.bounds import Bound, Work
from isara_jax.fit.compilation.compile import Outcome
from isara_jax.fit.program import Program

NOTHING = Program(
    name="a program",
    unit="step",
    argument_bytes={},
    resident_bytes={},
    work=Work(flops=0, bytes=0, tokens=0),
    lower=lambda: None,
)


def outcome(verdict, *, needed=2**30):
    return Outcome(
        program=NOTHING,
        verdict=verdict,
        bound=Bound(arithmetic=1.0, memory=1.0, tokens=1),
        seconds=0.0,
        needed=needed,
    )
