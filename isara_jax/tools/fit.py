"""Says whether a run fits a machine, by compiling its programs for it.

    python -m isara_jax.tools.fit --flagfile=configs/paper_llama.flags --slice=v5e-16
    python -m isara_jax.tools.fit --model=llama-70b --slice=2xv5p-256 --mesh_model=4

--model is what a run takes, or llama-7b, llama-13b, llama-70b, opt-6.7b or opt-66b; of
a folder or a hub id only config.json is read. --slice names a slice of TPUs, or
several; a machine without any compiles for it with libtpu. Without --slice it is this
host. All flags of a run are understood, so a run's flagfile says what is asked.

Compiled are the optimizer step with every example of --max_length tokens, a chunk of a
prompt, and a token in every slot (or the two programs of a beam search). Told are, for
each: what it takes of a device's memory and whether that fits, what the devices
exchange, and the time that it needs at least by its arithmetic and by the memory's
rate. If something does not fit, the nearest setting that does is looked for, unless
--nearest=off; the exit code is then 1.
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
    compile_without_chips,
    fits,
    heading,
    judge,
    lines_of,
    machine_of,
    nearest,
    nearest_line,
    programs_of,
    shape_of,
    slice_named,
    this_host,
    validate_model_axis,
)
from isara_jax.runtime import log


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What is asked besides a run's own settings."""

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
    """Prints what is found.

    Raises:
      InputError: the model or the slice is unknown, or a flag breaks a rule.
      EnvironmentFailure: something does not fit.
    """
    sections = sections_from_flags(READ, flag_values)
    name, asked = sections["source"].model, sections["fit"]
    slice = slice_named(asked.slice) if asked.slice else None
    setting = setting_of(sections, slice=slice)
    print(heading(setting, name=name), flush=True)
    outcomes = []
    for program in programs_of(setting):
        log(f"compiling: {program.name}")
        outcomes.append(judge(program, machine=setting.machine))
        print("\n".join(lines_of(outcomes[-1])), flush=True)
    if fits(outcomes):
        print(f"{name} fits {setting.machine.name}")
        return
    if asked.nearest == "on":
        log("looking for the nearest setting that fits")
        print(nearest_line(nearest(setting, slice=slice)))
    raise EnvironmentFailure(f"{name} does not fit {setting.machine.name} as asked")


def setting_of(sections: Mapping[str, Any], *, slice: Slice | None) -> FitRequest:
    """Puts together what is asked.

    Raises:
      InputError: the model is unknown, or flags do not go together.
      EnvironmentFailure: there is no compiler for the slice.
    """
    runtime = sections["runtime"]
    validate_master_dtype(sections["finetuning"], dtype=runtime.dtype)
    shape = shape_of(sections["source"].model)
    if slice is not None:
        compile_without_chips()
    setting = FitRequest(
        shape=shape,
        dtype=runtime.dtype,
        finetuning=sections["finetuning"],
        adapters=sections["lora"],
        sampling_params=max(
            sections["question"], sections["answer"], key=new_positions
        ),
        demo_tokens=sections["prompts"].demo_tokens,
        slots=sections["engine"].max_slots,
        prompts=sections["loop"].candidates,
        data=runtime.mesh_data,
        model=runtime.mesh_model,
        machine=this_host(runtime.dtype) if slice is None else machine_of(slice),
    )
    validate_model_axis(setting)
    return setting


def new_positions(sampling_params: SamplingParams) -> int:
    """Returns the positions that a prompt's continuations take."""
    return sampling_params.beams * sampling_params.max_new_tokens


def run() -> None:
    """Starts the command."""
    define_sections(DEFINED)
    start(work, module="isara_jax.tools.fit", to_save_memory="--train_batch")


if __name__ == "__main__":
    run()
