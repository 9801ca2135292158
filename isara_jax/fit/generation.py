"""The engine's programs of a run: a prefill and a decode step, and their work."""

from collections.abc import Iterator

from isara_jax.engine import EngineProgram, LargestCall
from isara_jax.fit.bounds import Work, chunk_work, token_work
from isara_jax.fit.program import Program, frozen_base_bytes
from isara_jax.fit.request import FitRequest
from isara_jax.runtime import bytes_on_device

# The tokens of a prompt after its demonstrations: the question that is answered, or
# the start of the one that is drafted.
OPEN_TURN = 128


def generation_programs(request: FitRequest) -> Iterator[Program]:
    """Yields the programs that generate, as the engine makes them."""
    for program in largest_call(request).programs():
        arguments = {"parameters": request.weights, **program.arguments}
        yield Program(
            name=program.name,
            unit=program.unit,
            argument_bytes={
                name: bytes_on_device(part) for name, part in arguments.items()
            },
            resident_bytes={
                name: bytes_on_device(part) for name, part in program.resident.items()
            }
            | frozen_base_bytes(request),
            work=_work(request, program),
            lower=program.lower,
        )


def largest_call(request: FitRequest) -> LargestCall:
    """Returns the engine's call with as many of the longest prompts as a step has."""
    context, params = request.shape.context, request.sampling_params
    longest = request.demo_tokens + OPEN_TURN
    memory = request.machine.memory
    return LargestCall(
        model=request.weights,
        mesh=request.mesh,
        sampling_params=params,
        slots=request.slots,
        requests=request.prompts,
        prompt_len=max(1, min(longest, context - params.max_new_tokens)),
        context=context,
        free=None if memory is None else memory - bytes_on_device(request.weights),
    )


def _work(request: FitRequest, program: EngineProgram) -> Work:
    if program.kind == "decode":
        return token_work(
            request, rows=program.rows, length=program.start, beams=program.beams
        )
    return chunk_work(request, width=program.end - program.start, end=program.end)
