"""The programs of a run, made from abstract arrays and ready to be compiled.

They are the ones that the trainer and the engine run, at the largest shapes that the
settings allow: every example as long as `max_length`, every prompt as long as its token
budget. Nothing of the model's size is allocated.
"""

from collections.abc import Iterator

from isara_jax.fit.generation import generation_programs
from isara_jax.fit.program import Program
from isara_jax.fit.request import FitRequest
from isara_jax.fit.training import train_program


def programs_of(request: FitRequest) -> Iterator[Program]:
    """Yields the train step, and the programs that generate."""
    yield train_program(request)
    yield from generation_programs(request)
