"""The side of torch in `benchmarks.finetune`: transformers' model in a plain loop."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from benchmarks.finetune.workloads import (
    LORA_ALPHA,
    LORA_RANK,
    WARM_UP,
    Pair,
    dense_pairs,
    peak_gb,
    question_answer_pairs,
    shuffled_batches,
)
from isara_jax.runtime import locate

# What torch's loss leaves out.
IGNORED = -100


def measure(options: Any) -> dict[str, float]:
    """Returns tokens a second, or seconds of an epoch, and the peak memory."""
    model = _load(options.model)
    if options.only == "remat":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if options.only == "lora":
        model = _with_adapters(model, options.lora_targets)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0)
    given = {"vocabulary": model.config.vocab_size, "shrink": options.shrink}
    if options.only == "qa":
        batches = shuffled_batches(question_answer_pairs(**given))
    else:
        batches = dense_pairs(steps=WARM_UP + options.steps, **given)
    seconds = []
    for batch in batches:
        begun = time.perf_counter()
        _step(model, optimizer, batch)
        seconds.append(time.perf_counter() - begun)
    if options.only == "qa":
        return {"value": sum(seconds), "compilation": 0.0, "peak_gb": peak_gb()}
    tokens = sum(len(prompt) + len(answer) for prompt, answer in batches[0])
    step = statistics.median(seconds[WARM_UP:])
    return {"value": tokens / step, "peak_gb": peak_gb()}


def _step(model: Any, optimizer: Any, batch: Sequence[Pair]) -> None:
    longest = max(len(prompt) + len(answer) for prompt, answer in batch)
    tokens = torch.zeros((len(batch), longest), dtype=torch.long)
    mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, IGNORED)
    for row, (prompt, answer) in enumerate(batch):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(answer)
    loss = model(tokens, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _with_adapters(model: Any, targets: str) -> Any:
    import peft

    modules: Any = {"all": "all-linear", "qv": ["q_proj", "v_proj"]}[targets]
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,
            target_modules=modules,
            task_type="CAUSAL_LM",
        ),
    )


def _load(source: str) -> Any:
    path = locate(source)
    named = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent if named else path, dtype=torch.float32, **named
    )
    return model.train()
