"""Searches the nearest request that fits: changes its settings one after another.

First come changes that cost time only: remat, smaller micro-batches, more devices for
each model. Then come those that change the result: bf16 master parameters, Adafactor,
adapters. The last ones cost money: a larger slice. A candidate is compiled if an
estimate of its memory says that it may fit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from isara_jax.errors import FieldError
from isara_jax.finetune import abstract_state
from isara_jax.fit.compilation import Outcome, compile_and_check
from isara_jax.fit.machines import Slice, machine_of
from isara_jax.fit.programs import programs_of
from isara_jax.fit.request import FitRequest
from isara_jax.runtime import bytes_on_device

# The search ends when so many candidates were compiled and did not fit.
MAX_COMPILED = 4
# The rank of the adapters that are tried.
ADAPTER_RANK = 16
# The model axis stays within a host, where its links are fastest.
MAX_MODEL_AXIS = 8
# So many arrays of the residual stream's width are kept in a layer's backward pass,
# beside three of the feed-forward's width.
WIDE_ARRAYS = 12


@dataclass(frozen=True, kw_only=True)
class NearestFit:
    """A request that fits, the fields that were changed, and its compiled programs."""

    request: FitRequest
    changes: Mapping[str, str]
    outcomes: tuple[Outcome, ...]


_ITEMSIZE = {"float32": 4, "bfloat16": 2}

Compile = Callable[[FitRequest], Sequence[Outcome]]
# The changed fields with their new values, and the request with them.
Candidate = tuple[dict[str, str], FitRequest]


def compile_all(request: FitRequest) -> tuple[Outcome, ...]:
    """Compiles all programs of a request."""
    return tuple(
        compile_and_check(program, machine=request.machine)
        for program in programs_of(request)
    )


def fits(outcomes: Sequence[Outcome]) -> bool:
    """Tells whether every program fits."""
    return all(outcome.verdict == "fits" for outcome in outcomes)


def find_nearest_fit(
    request: FitRequest, *, slice: Slice | None, compile: Compile = compile_all
) -> NearestFit | None:
    """Returns the first candidate whose programs fit, or None if the search ends.

    Args:
      request: what does not fit.
      slice: the slice of the request; None is this host, which has no larger one.
      compile: compiles a candidate's programs.
    """
    compiled = 0
    for changes, candidate in candidates(request, slice=slice):
        memory = candidate.machine.memory
        if memory is not None and estimated_bytes(candidate) > memory:
            continue
        outcomes = tuple(compile(candidate))
        if fits(outcomes):
            return NearestFit(request=candidate, changes=changes, outcomes=outcomes)
        compiled += 1
        if compiled == MAX_COMPILED:
            break
    return None


def candidates(request: FitRequest, *, slice: Slice | None) -> Iterator[Candidate]:
    """Yields the candidates in the order in which they are tried.

    Remat and smaller micro-batches add up. On top of them come a larger model axis,
    alternatively less state, alternatively adapters. A larger slice takes the request
    as it was.
    """
    smaller: Candidate = ({}, request)
    for smaller in _with_less_activations(request):
        yield smaller
    yield from _with_larger_model_axis(smaller)
    yield from _with_less_state(smaller)
    if not request.lora.lora_rank:
        changes, base = smaller
        lora = replace(request.lora, lora_rank=ADAPTER_RANK)
        rank = {"lora_rank": str(ADAPTER_RANK)}
        yield changes | rank, replace(base, lora=lora)
    for larger in slice.larger() if slice is not None else ():
        machine = machine_of(larger)
        changes = {"slice": larger.name, "mesh_data": "-1"}
        yield changes, replace(request, machine=machine, mesh_data=-1)


def _with_less_activations(request: FitRequest) -> Iterator[Candidate]:
    changes: dict[str, str] = {}
    if request.finetuning.remat != "full":
        finetuning = replace(request.finetuning, remat="full")
        changes, request = {"remat": "full"}, replace(request, finetuning=finetuning)
        yield changes, request
    while (half := request.finetuning.train_batch // 2) >= request.mesh.shape["data"]:
        changes, request = _with_micro_batch(request, changes, at_most=half)
        yield changes, request


def _with_larger_model_axis(candidate: Candidate) -> Iterator[Candidate]:
    changes, request = candidate
    while model_axis_divides(request, 2 * request.mesh_model):
        size = 2 * request.mesh_model
        data = request.mesh.size // size
        changes, request = _with_micro_batch(request, changes, at_most=data)
        request = replace(request, mesh_model=size, mesh_data=-1)
        changes = changes | {"mesh_model": str(size), "mesh_data": "-1"}
        yield changes, request


def _with_less_state(candidate: Candidate) -> Iterator[Candidate]:
    changes, request = candidate
    if request.dtype == "bfloat16" and request.finetuning.master_dtype == "float32":
        finetuning = replace(request.finetuning, master_dtype="bfloat16")
        changes = changes | {"master_dtype": "bfloat16"}
        request = replace(request, finetuning=finetuning)
        yield changes, request
    if request.finetuning.optimizer != "adafactor":
        finetuning = replace(request.finetuning, optimizer="adafactor")
        changes = changes | {"optimizer": "adafactor"}
        yield changes, replace(request, finetuning=finetuning)


def _with_micro_batch(
    request: FitRequest, changes: dict[str, str], *, at_most: int
) -> Candidate:
    """Lowers the micro-batch; a step keeps its number of examples, or has more."""
    config = request.finetuning
    rows = min(config.train_batch, at_most)
    accumulation = -(-config.train_batch * config.accumulation // rows)
    finetuning = replace(config, train_batch=rows, accumulation=accumulation)
    changed = {"train_batch": str(rows), "accumulation": str(accumulation)}
    return changes | changed, replace(request, finetuning=finetuning)


def model_axis_divides(request: FitRequest, size: int) -> bool:
    """Tells whether a model axis of this size divides the devices and the KV heads."""
    return (
        size <= MAX_MODEL_AXIS
        and request.mesh.size % size == 0
        and request.shape.kv_heads % size == 0
    )


def validate_model_axis(request: FitRequest) -> None:
    """Refuses a model axis that would leave every device with all heads.

    Raises:
      FieldError: it does not divide the model's query heads or the devices.
    """
    size, devices = request.mesh_model, len(request.machine.devices)
    for number, of in ((request.shape.heads, "query heads"), (devices, "devices")):
        if number % size:
            raise FieldError(
                "mesh_model", size, f"must divide the {of}, which are {number}"
            )


def estimated_bytes(request: FitRequest) -> int:
    """Estimates the bytes of an optimizer step on a device, a little low.

    Counted are the state, the model's copy in its dtype, the sums of gradients, the
    residual stream that every layer hands on, and the arrays of one layer with its
    weights gathered.
    """
    config, mesh, shape = request.finetuning, request.mesh, request.shape
    state = abstract_state(request.trainable, config=config, mesh=mesh)
    weights = bytes_on_device(request.weights)
    itemsize = _ITEMSIZE[request.dtype]
    copied = bytes_on_device(state.model) * itemsize // _ITEMSIZE[config.master_dtype]
    # Gradients are of the model's dtype, and fp32 where micro-batches are summed.
    gradients = copied * (4 // itemsize if config.accumulation > 1 else 1)
    copy = 0 if config.master_dtype == request.dtype else copied
    base = 0 if request.base is None else bytes_on_device(request.base)
    rows = -(-config.train_batch // mesh.shape["data"])
    positions = rows * min(config.max_length, shape.context)
    residuals = shape.layers * positions * shape.width
    model = mesh.shape["model"]
    of_layer = positions * (WIDE_ARRAYS * shape.width + 3 * shape.feed_forward) // model
    activations = of_layer * (1 if config.remat == "full" else shape.layers)
    gathered = weights * mesh.shape["data"] // shape.layers
    return (
        bytes_on_device(state)
        + base
        + gradients
        + copy
        + itemsize * (residuals + activations)
        + gathered
    )
