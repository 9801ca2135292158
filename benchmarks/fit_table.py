"""Prints which models fit which slices of TPUs, as the Markdown table of docs/fit.md.

    python -m benchmarks.fit_table [--row=llama-7b,v5e-16 ...]

Each row is compiled with libtpu on this machine, in one to some minutes: an optimizer
step of 32 examples of 2,048 tokens (bf16, fp32 masters, AdamW, full remat; adapters of
rank 16 where it says LoRA), a chunk of a prompt, and a token in as many slots as there
is room for, at most 256. Memory is of a device, and what is told of time are bounds: no
machine is faster. A row is a model, a slice, `lora` or the size of the model axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from absl import app, flags

from isara_jax.engine import SamplingParams
from isara_jax.finetune import FinetuneConfig, LoraConfig
from isara_jax.fit import (
    GIB,
    MODEL_SHAPES,
    FitRequest,
    Outcome,
    compile_and_check,
    compile_without_chips,
    machine_of,
    programs_of,
    slice_named,
    table_row,
)

ROWS = (
    *("llama-7b,v5e-16", "llama-7b,v5p-8", "llama-7b,v6e-8", "llama-7b,v5e-4"),
    *("llama-13b,v5e-32", "llama-13b,v5p-8", "llama-13b,v6e-16"),
    *("llama-70b,v5p-16,lora", "llama-70b,v6e-32,lora", "llama-70b,v5p-128"),
    *("llama-70b,v6e-256", "llama-70b,v5e-16"),
    *("opt-6.7b,v5e-16", "opt-6.7b,v4-16", "opt-6.7b,tpu7x-8"),
    *("opt-66b,v5p-128", "opt-66b,v6e-256", "opt-66b,2xv5e-256"),
)
COLUMNS = (
    *("model", "trained", "slice", "data x model"),
    *("state", "temporaries", "of", "step", "exchanged a step"),
    *("step at least", "tokens/s at most", "slots", "tokens/s at most", "compiled in"),
)
EXAMPLES = 32

CHOSEN = flags.DEFINE_multi_string("row", list(ROWS), "A row of the table.")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model on a slice."""

    model: str
    slice: str
    lora: bool = False
    axis: int = 1


def row_of(text: str) -> Row:
    """Reads MODEL,SLICE[,lora][,AXIS]."""
    model, slice, *rest = text.split(",")
    axes = [int(word) for word in rest if word != "lora"]
    return Row(model=model, slice=slice, lora="lora" in rest, axis=sum(axes) or 1)


def request_of(row: Row) -> FitRequest:
    """Returns what is compiled for a row."""
    machine = machine_of(slice_named(row.slice))
    rows = min(EXAMPLES, max(1, len(machine.devices) // row.axis))
    return FitRequest(
        shape=MODEL_SHAPES[row.model],
        dtype="bfloat16",
        finetuning=FinetuneConfig(train_batch=rows, accumulation=EXAMPLES // rows),
        lora=LoraConfig(lora_rank=16 if row.lora else 0),
        sampling_params=SamplingParams(max_new_tokens=200),
        demo_tokens=1500,
        slots=0,
        prompts=512,
        mesh_data=-1,
        mesh_model=row.axis,
        machine=machine,
    )


def cells(row: Row, request: FitRequest, outcomes: Sequence[Outcome]) -> list[str]:
    """Returns what a row of the table says."""
    train, _, sampling_params = outcomes
    mesh, arguments = request.mesh, train.program.argument_bytes
    memory, exchanged = train.memory, train.collectives
    return [
        row.model,
        "LoRA" if row.lora else "all",
        row.slice,
        f"{mesh.shape['data']} x {mesh.shape['model']}",
        gib(sum(arguments.values())),
        gib(memory.temporaries) if memory else "",
        f"{gib(train.needed)} of {gib(train.available)}",
        train.verdict,
        gib(sum(exchanged.values())) if exchanged is not None else "",
        f"{train.bound.seconds:.2f} s",
        f"{train.bound.tokens_per_second:,.0f}",
        f"{sampling_params.bound.tokens} ({sampling_params.verdict})",
        f"{sampling_params.bound.tokens_per_second:,.0f}",
        f"{sum(outcome.seconds for outcome in outcomes):.0f} s",
    ]


def gib(size: float | None) -> str:
    """Writes bytes in GiB."""
    return "?" if size is None else f"{size / GIB:.1f}"


def main(_: list[str]) -> None:
    """Prints a row as soon as it is compiled."""
    compile_without_chips()
    print(table_row(COLUMNS))
    print(table_row(["---"] * len(COLUMNS)), flush=True)
    for text in CHOSEN.value:
        row = row_of(text)
        request = request_of(row)
        outcomes = [
            compile_and_check(program, machine=request.machine)
            for program in programs_of(request)
        ]
        print(table_row(cells(row, request, outcomes)), flush=True)


if __name__ == "__main__":
    app.run(main)
