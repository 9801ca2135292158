"""The nearest setting that fits: changes one after another, in a sensible order.

First what costs time only (remat, fewer rows at once, more devices a model), then what
changes the result (bf16 masters, Adafactor, adapters in the model's place), then what
costs money (a larger slice). An estimate of the memory says which is worth compiling.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from isara_jax.errors import InputError
from isara_jax.finetune import abstract_state
from isara_jax.fit.compilation import Outcome, judge
from isara_jax.fit.machines import Slice, machine_of
from isara_jax.fit.programs import programs_of
from isara_jax.fit.request import FitRequest, bytes_on_device

# How often what was estimated to fit may turn out not to before the search ends.
MOST_COMPILED = 4
# What adapters are tried with.
ADAPTER_RANK = 16
# Of the model axis: within a host, where its links are fastest.
MOST_MODEL = 8
# How many arrays as wide as the residual stream a layer keeps while it is run backward,
# besides those as wide as its feed-forward, of which it keeps three.
WIDE_ARRAYS = 12


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """A setting that fits, the flags that lead there, and what proves it."""

    setting: FitRequest
    flags: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


_MASTER = {"float32": 4, "bfloat16": 2}

Judge = Callable[[FitRequest], Sequence[Outcome]]
Changed = tuple[dict[str, str], FitRequest]


def judged(setting: FitRequest) -> tuple[Outcome, ...]:
    """Compiles all programs of a setting."""
    return tuple(
        judge(program, machine=setting.machine) for program in programs_of(setting)
    )


def fits(outcomes: Sequence[Outcome]) -> bool:
    """Says whether every program fits."""
    return all(outcome.verdict == "fits" for outcome in outcomes)


def nearest(
    setting: FitRequest, *, slice: Slice | None, prove: Judge = judged
) -> Nearest | None:
    """Returns the first setting on the way that is proven to fit, if any is found."""
    compiled = 0
    for flags, candidate in changes(setting, slice=slice):
        memory = candidate.machine.memory
        if memory is not None and estimated_bytes(candidate) > memory:
            continue
        outcomes = tuple(prove(candidate))
        if fits(outcomes):
            return Nearest(
                setting=candidate,
                flags=tuple(f"--{name}={value}" for name, value in flags.items()),
                outcomes=outcomes,
            )
        compiled += 1
        if compiled == MOST_COMPILED:
            break
    return None


def changes(setting: FitRequest, *, slice: Slice | None) -> Iterator[Changed]:
    """Yields changed settings with the flags that lead there, in the order to try.

    Remat and fewer rows at once come first, each upon the one before. Upon these come
    the model axis, or else narrower state, or else adapters. A larger slice takes the
    setting as it was asked for.
    """
    fewer: Changed = ({}, setting)
    for fewer in _in_more_time(setting):
        yield fewer
    yield from _on_more_devices_a_model(fewer)
    yield from _in_narrower_state(fewer)
    if not setting.adapters.lora_rank:
        flags, base = fewer
        adapters = replace(setting.adapters, lora_rank=ADAPTER_RANK)
        wanted = {"lora_rank": str(ADAPTER_RANK)}
        yield flags | wanted, replace(base, adapters=adapters)
    for larger in slice.larger() if slice is not None else ():
        machine = machine_of(larger)
        moved = {"slice": larger.name, "mesh_data": "-1"}
        yield moved, replace(setting, machine=machine, data=-1)


def _in_more_time(setting: FitRequest) -> Iterator[Changed]:
    flags: dict[str, str] = {}
    if setting.finetuning.remat != "full":
        tuned = replace(setting.finetuning, remat="full")
        flags, setting = {"remat": "full"}, replace(setting, finetuning=tuned)
        yield flags, setting
    while (half := setting.finetuning.train_batch // 2) >= setting.mesh.shape["data"]:
        flags, setting = _with_rows(setting, flags, most=half)
        yield flags, setting


def _on_more_devices_a_model(changed: Changed) -> Iterator[Changed]:
    flags, setting = changed
    while divides(setting, 2 * setting.model):
        wider = 2 * setting.model
        flags, setting = _with_rows(setting, flags, most=setting.mesh.size // wider)
        setting = replace(setting, model=wider, data=-1)
        flags = flags | {"mesh_model": str(wider), "mesh_data": "-1"}
        yield flags, setting


def _in_narrower_state(changed: Changed) -> Iterator[Changed]:
    flags, setting = changed
    if setting.dtype == "bfloat16" and setting.finetuning.master_dtype == "float32":
        tuned = replace(setting.finetuning, master_dtype="bfloat16")
        flags, setting = (
            flags | {"master_dtype": "bfloat16"},
            replace(setting, finetuning=tuned),
        )
        yield flags, setting
    if setting.finetuning.optimizer != "adafactor":
        tuned = replace(setting.finetuning, optimizer="adafactor")
        yield (
            flags | {"optimizer": "adafactor"},
            replace(setting, finetuning=tuned),
        )


def _with_rows(setting: FitRequest, flags: dict[str, str], *, most: int) -> Changed:
    """Lowers the rows of a micro-batch; a step keeps its examples, or more."""
    config = setting.finetuning
    rows = min(config.train_batch, most)
    accumulation = -(-config.train_batch * config.accumulation // rows)
    tuned = replace(config, train_batch=rows, accumulation=accumulation)
    changed = {"train_batch": str(rows), "accumulation": str(accumulation)}
    return flags | changed, replace(setting, finetuning=tuned)


def divides(setting: FitRequest, model: int) -> bool:
    """Says whether so many devices a model divide the devices and its KV heads."""
    return (
        model <= MOST_MODEL
        and setting.mesh.size % model == 0
        and setting.shape.kv_heads % model == 0
    )


def validate_model_axis(setting: FitRequest) -> None:
    """Refuses a model axis that would leave every device with all heads.

    Raises:
      InputError: it does not divide the model's query heads or the devices.
    """
    model, devices = setting.model, len(setting.machine.devices)
    for number, of in ((setting.shape.heads, "query heads"), (devices, "devices")):
        if number % model:
            raise InputError(
                f"--mesh_model={model}: must divide the {of}, which are {number}"
            )


def estimated_bytes(setting: FitRequest) -> int:
    """Estimates what an optimizer step takes on a device, a little low.

    The state; the model's copy in its dtype and the sums of gradients; what every layer
    hands on; and one layer's own arrays with its weights gathered.
    """
    config, mesh, shape = setting.finetuning, setting.mesh, setting.shape
    state = abstract_state(setting.trained, config=config, mesh=mesh)
    weights = bytes_on_device(setting.weights)
    itemsize = 2 if setting.dtype == "bfloat16" else 4
    # In fp32 where they are summed up, in the model's dtype elsewhere; and the copy.
    trained = bytes_on_device(state.model) * itemsize // _MASTER[config.master_dtype]
    gradients = trained * (4 // itemsize if config.accumulation > 1 else 1)
    copy = 0 if config.master_dtype == setting.dtype else trained
    base = 0 if setting.base is None else bytes_on_device(setting.base)
    rows = -(-config.train_batch // mesh.shape["data"])
    positions = rows * min(config.max_length, shape.context)
    handed_on = shape.layers * positions * shape.width
    model = mesh.shape["model"]
    within = positions * (WIDE_ARRAYS * shape.width + 3 * shape.feed_forward) // model
    kept = within * (1 if config.remat == "full" else shape.layers)
    layer = weights * mesh.shape["data"] // shape.layers
    return (
        bytes_on_device(state)
        + base
        + gradients
        + copy
        + itemsize * (handed_on + kept)
        + layer
    )
