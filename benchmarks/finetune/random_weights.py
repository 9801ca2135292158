"""Steps of packed rows on random weights: tokens a second, and MFU.

The FLOPs of a step are what its mathematics needs: 6 a parameter and token for every
parameter but the input table, which is only looked up, or 4 where it is frozen, and
causal attention within each example. What remat computes twice does not count. They are
set against 989 TFLOP/s, dense bf16 of an H100 or H200, and against the rate that the
device itself reaches at a large matrix product.
"""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.finetune.isara_jax_side import lora_of
from benchmarks.finetune.workloads import LORA_RANK
from benchmarks.shapes import SHAPES, random_llama
from isara_jax.finetune import (
    FinetuneConfig,
    TrainBatch,
    TrainingExample,
    collate,
    initial_state,
    pack_steps,
    train_step,
)
from isara_jax.models.llama import Llama, LlamaConfig
from isara_jax.models.lora import quantize_model
from isara_jax.runtime import make_mesh, shard_batch
from isara_jax.runtime.hardware import device_peak_rates

H100_TFLOPS = 989
WARM_UP = 2


def measure(options: Any) -> dict[str, Any]:
    """Returns the figures of the steps."""
    shape = SHAPES[options.shape]
    mesh = make_mesh(data=1, model=1)
    config = FinetuneConfig(
        learning_rate=1e-5,
        remat=options.remat,
        optimizer=options.optimizer,
        master_dtype=options.master_dtype,
    )
    examples = _examples(shape, options)
    seconds = _step_seconds(examples, config, options=options, mesh=mesh)
    device = jax.devices()[0]
    tokens = sum(len(one) - 1 for one in examples)
    memory = device.memory_stats() or {}
    is_hopper = any(name in device.device_kind for name in ("H100", "H200"))
    return {
        "device": device.device_kind,
        "layout": f"{options.rows} rows of {options.length}, {options.segments} "
        f"examples each, {options.dtype}, {options.optimizer}, "
        f"{options.master_dtype} masters, remat {options.remat}, "
        f"{_trained(options)}",
        "parameters": _parameters(shape),
        "tokens_per_second": tokens / seconds,
        "step_seconds": seconds,
        "tflops": step_flops(shape, examples, frozen=options.only == "lora")
        / seconds
        / 1e12,
        "matrix_tflops": device_peak_rates("bfloat16").flops_per_second / 1e12,
        "peak_tflops": H100_TFLOPS if is_hopper else 0,
        "peak_bytes": memory.get("peak_bytes_in_use", 0),
    }


def _examples(shape: LlamaConfig, options: Any) -> list[TrainingExample]:
    """Returns examples that fill the rows and have a loss at every position."""
    random = np.random.default_rng(0)
    positions = options.length // options.segments
    drawn = random.integers(
        0, shape.vocab_size, (options.rows * options.segments, positions + 1)
    ).tolist()
    return [
        TrainingExample(
            id=str(number), prompt_tokens=(row[0],), answer_tokens=tuple(row[1:])
        )
        for number, row in enumerate(drawn)
    ]


def _step_seconds(
    examples: Any,
    config: FinetuneConfig,
    *,
    options: Any,
    mesh: Any,
) -> float:
    """Returns the median time of a step."""
    dtype = jnp.dtype(options.dtype)
    plan = pack_steps(
        [examples], micro_batches=1, groups=1, length=options.length, multiple=128
    )
    batch = TrainBatch(
        *(shard_batch(a, mesh) for a in collate(plan.steps[0], shape=plan.shape))
    )
    state, base = _start(config, options=options, mesh=mesh)
    seconds = []
    for _ in range(WARM_UP + options.steps):
        begun = time.perf_counter()
        state, told = train_step(
            state,
            batch,
            learning_rate=np.float32(config.learning_rate),
            key=jax.random.key(1),
            config=config,
            dtype=dtype,
            mesh=mesh,
            base=base,
        )
        if not np.isfinite(float(told.loss)):  # waits for the step
            raise FloatingPointError(f"loss {told.loss}")
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[WARM_UP:])


def _start(config: FinetuneConfig, *, options: Any, mesh: Any) -> tuple[Any, Any]:
    """Returns the state, and the base that it is trained on with LoRA."""
    if options.only != "lora":
        # The model has no name here: its weights go when the state is made of them.
        return initial_state(
            random_llama(options.shape, dtype=options.dtype), config=config, mesh=mesh
        ), None
    model = random_llama(options.shape, dtype=options.dtype)
    adapters = lora_of(model, options.lora_targets, mesh=mesh)
    if options.base_dtype != "keep":
        model = quantize_model(model, options.base_dtype, mesh=mesh)
    return initial_state(adapters, config=config, mesh=mesh), model


def _parameters(shape: LlamaConfig) -> int:
    model = jax.eval_shape(lambda: Llama(shape, key=jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(model))


def _trained(options: Any) -> str:
    if options.only != "lora":
        return "all parameters"
    return (
        f"LoRA of rank {LORA_RANK} on {options.lora_targets}, base {options.base_dtype}"
    )


def step_flops(
    shape: LlamaConfig, examples: list[TrainingExample], *, frozen: bool = False
) -> float:
    """Returns what forward and backward of a step need.

    A frozen model has no gradient by its parameters; its adapters are left out.
    """
    multiplied = _parameters(shape) - shape.vocab_size * shape.width
    lengths = [len(one) - 1 for one in examples]
    # Two products of T x T / 2 with N x H each, 2 FLOPs; the backward pass twice that.
    attention = 3 * 2 * 2 * shape.heads * shape.head_size * shape.layers / 2
    return (4.0 if frozen else 6.0) * multiplied * sum(lengths) + attention * sum(
        n * n for n in lengths
    )
