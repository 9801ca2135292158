"""Checks whether a run fits a machine, by compiling its programs for it.

    python -m isara_jax.tools.fit --flagfile=configs/paper_llama.flags --slice=v5e-16
    python -m isara_jax.tools.fit --model=llama-70b --slice=2xv5p-256 --mesh_model=4

--model is what a run takes, or llama-7b, llama-13b, llama-70b, opt-6.7b or opt-66b; of
a folder or a hub id only config.json is read. --slice names a slice of TPUs, or
several; a machine without any compiles for it with libtpu. Without --slice it is this
host. All flags of a run are understood, so a run's flagfile says what is asked.

It compiles the optimizer step with every example of --max_length tokens, a prefill
chunk of a prompt, and a decode step of all slots (or the two programs of a beam
search). Of each it prints the memory on a device, the bytes that the devices exchange,
and lower bounds on its time. If a program does not fit, it looks for the nearest
setting that does, unless --nearest=off, and the exit code is 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from absl import flags

from isara_jax import config as configuration
from isara_jax.cli import Section, Sections, define_sections, sections_from_flags, start
from isara_jax.config import validate_master_dtype
from isara_jax.engine import SamplingParams
from isara_jax.errors import EnvironmentFailure
from isara_jax.fit import (
    FitRequest,
    Slice,
    compile_and_check,
    compile_without_chips,
    find_nearest_fit,
    fits,
    heading,
    machine_of,
    model_shape,
    nearest_line,
    outcome_lines,
    programs_of,
    slice_named,
    this_host,
    validate_model_axis,
)
from isara_jax.runtime import log


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings beside those of a run."""

    slice: str = field(
        default="",
        metadata={
            "help": "the slice of TPUs to compile for, such as v5e-16, v5p-8 or "
            "2xv6e-256; empty: this host"
        },
    )
    nearest: Literal["on", "off"] = field(
        default="on",
        metadata={"help": "whether to look for a setting that fits where one does not"},
    )


DEFINED: Sections = {**configuration.SECTIONS, "fit": Section(kind=FitConfig)}
# The files that a run reads and writes do not decide on its programs.
READ: Sections = {name: DEFINED[name] for name in DEFINED if name != "run"}


def work(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Compiles the programs and prints their outcomes.

    Raises:
      InputError: the model or the slice is unknown, or a flag breaks a rule.
      EnvironmentFailure: something does not fit.
    """
    sections = sections_from_flags(READ, flag_values)
    name, asked = sections["source"].model, sections["fit"]
    slice = slice_named(asked.slice) if asked.slice else None
    request = request_of(sections, slice=slice)
    print(heading(request, name=name), flush=True)
    outcomes = []
    for program in programs_of(request):
        log(f"compiling: {program.name}")
        outcomes.append(compile_and_check(program, machine=request.machine))
        print("\n".join(outcome_lines(outcomes[-1])), flush=True)
    if fits(outcomes):
        print(f"{name} fits {request.machine.name}")
        return
    if asked.nearest == "on":
        log("looking for the nearest setting that fits")
        print(nearest_line(find_nearest_fit(request, slice=slice), prefix="--"))
    raise EnvironmentFailure(f"{name} does not fit {request.machine.name} as asked")


def request_of(sections: Mapping[str, Any], *, slice: Slice | None) -> FitRequest:
    """Builds the request from the sections.

    Raises:
      InputError: the model is unknown, or flags do not go together.
      EnvironmentFailure: there is no compiler for the slice.
    """
    runtime = sections["runtime"]
    validate_master_dtype(sections["finetuning"], dtype=runtime.dtype)
    shape = model_shape(sections["source"].model)
    if slice is not None:
        compile_without_chips()
    request = FitRequest(
        shape=shape,
        dtype=runtime.dtype,
        finetuning=sections["finetuning"],
        lora=sections["lora"],
        sampling_params=max(
            sections["question"], sections["answer"], key=new_positions
        ),
        demo_tokens=sections["prompts"].demo_tokens,
        slots=sections["engine"].max_slots,
        prompts=sections["loop"].candidates,
        mesh_data=runtime.mesh_data,
        mesh_model=runtime.mesh_model,
        machine=this_host(runtime.dtype) if slice is None else machine_of(slice),
    )
    validate_model_axis(request)
    return request


def new_positions(sampling_params: SamplingParams) -> int:
    """Returns the positions of a prompt's continuations in the KV cache."""
    return sampling_params.beams * sampling_params.max_new_tokens


def run() -> None:
    """Starts the command."""
    define_sections(DEFINED)
    start(work, module="isara_jax.tools.fit", to_save_memory="--train_batch")


if __name__ == "__main__":
    run()
