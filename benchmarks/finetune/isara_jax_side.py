"""The side of isara_jax in `benchmarks.finetune`: the trainer as a round runs it."""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax

from benchmarks.finetune.workloads import (
    BATCH,
    LORA_ALPHA,
    LORA_RANK,
    WARM_UP,
    Pair,
    dense_pairs,
    peak_gb,
    question_answer_pairs,
)
from isara_jax.finetune import FinetuneConfig, TrainingExample, TrainingHooks, finetune
from isara_jax.models.checkpoints import load_model, open_model
from isara_jax.models.lora import Adapters, fresh_adapters, target_weights
from isara_jax.runtime import locate, make_mesh


def measure(options: Any) -> dict[str, float]:
    """Returns tokens a second, or seconds of an epoch, and the peak memory."""
    mesh = make_mesh(data=1, model=1)
    model = load_model(open_model(locate(options.model)), dtype="float32", mesh=mesh)
    given = {"vocabulary": model.config.vocab_size, "shrink": options.shrink}
    if options.only == "qa":
        pairs = question_answer_pairs(**given)
        config = _config(batch=BATCH, remat="none", packing="on")
    else:
        steps = dense_pairs(steps=WARM_UP + options.steps, **given)
        pairs = [pair for step in steps for pair in step]
        remat = "full" if options.only == "remat" else "none"
        config = _config(batch=len(steps[0]), remat=remat, packing="off")
    base, trained = (None, model)
    if options.only == "lora":
        base, trained = model, lora_of(model, options.lora_targets, mesh=mesh)
    ends = [time.perf_counter()]
    finetune(
        trained,
        _examples(pairs),
        config=config,
        round_index=1,
        seed=1,
        mesh=mesh,
        hooks=TrainingHooks(on_step=lambda _: ends.append(time.perf_counter())),
        base=base,
    )
    seconds = [end - begin for begin, end in pairwise(ends)]
    step = statistics.median(seconds[WARM_UP:])
    if options.only == "qa":
        return {
            "value": time.perf_counter() - ends[0],
            "compilation": max(0.0, seconds[0] - step),
            "peak_gb": peak_gb(),
        }
    tokens = sum(len(prompt) + len(answer) for prompt, answer in steps[0])
    return {"value": tokens / step, "peak_gb": peak_gb()}


def lora_of(model: Any, targets: str, *, mesh: Any) -> Adapters:
    """Returns adapters of rank 8 on all weights of the layers, or on q and v."""
    words = {"all": ("heads", "kv_heads", "mlp"), "qv": ("q", "v")}[targets]
    return fresh_adapters(
        model,
        target_weights(model, words),
        rank=LORA_RANK,
        alpha=LORA_ALPHA,
        key=jax.random.key(0),
        mesh=mesh,
    )


def _config(*, batch: int, remat: Any, packing: Any) -> FinetuneConfig:
    return FinetuneConfig(
        learning_rate=1e-5,
        train_batch=batch,
        accumulation=1,
        remat=remat,
        train_packing=packing,
    )


def _examples(pairs: Sequence[Pair]) -> list[TrainingExample]:
    return [
        TrainingExample(id=str(number), prompt_tokens=prompt, answer_tokens=answer)
        for number, (prompt, answer) in enumerate(pairs)
    ]
