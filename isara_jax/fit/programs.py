"""The programs of a run, made ready to be compiled from shapes alone.

They are the ones that the trainer and the engine call, at the largest shapes that the
settings allow: every example as long as --max_length, every prompt as long as its
budget. Nothing of the model's size is allocated.
"""

from collections.abc import Iterator

from isara_jax.fit.program import Program
from isara_jax.fit.request import FitRequest
from isara_jax.fit.training import train_program
from isara_jax.fit.writing import beam_programs, slot_programs


def programs_of(setting: FitRequest) -> Iterator[Program]:
    """Yields the train step, and what prompts and their continuations run through."""
    yield train_program(setting)
    if setting.sampling_params.beams > 1:
        yield from beam_programs(setting)
    else:
        yield from slot_programs(setting)
