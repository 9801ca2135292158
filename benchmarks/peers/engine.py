"""The package's own engine, as one side of the comparison."""

import time
from typing import Any

import jax

from benchmarks.generation.workloads import Timing, Workload
from isara_jax.engine import (
    Engine,
    EngineMetrics,
    Request,
    SamplingParams,
    StopCriteria,
)
from isara_jax.models import Decoder
from isara_jax.runtime import dtype_of, make_mesh
from isara_jax.runtime.hardware import device_peak_rates


class EngineSide:
    """The engine with so many slots, or as many as a workload has rows.

    Each workload begins with an empty cache.
    """

    def __init__(self, model: Decoder, *, slots: int):
        self.model, self.slots = model, slots
        self.mesh = make_mesh(data=1, model=1)
        self.done: list[EngineMetrics] = []

    def shares(self) -> dict[str, float]:
        """Returns the shares of the machine's bound since this was last asked."""
        dtype = dtype_of(self.model).name
        records = [metrics.record(device_peak_rates(dtype)) for metrics in self.done]
        self.done = []
        shares = {}
        for phase in ("prefill", "decode"):
            seconds = [record[f"{phase}_seconds"] for record in records]
            found = [record[f"{phase}_share_of_bound"] or 0.0 for record in records]
            bound = sum(a * b for a, b in zip(seconds, found, strict=True))
            if sum(seconds):
                shares[phase] = bound / sum(seconds)
        return shares

    def run(self, workload: Workload) -> Timing:
        """Does a workload.

        Raises:
          RuntimeError: a text has another length than the workload says.
        """
        engine = Engine(
            model=self.model,
            mesh=self.mesh,
            slots=max(self.slots, workload.rows),
            context=self.model.config.context,
            check=lambda: None,
        )
        prompts, how = _prompts(workload), _rules(workload)
        metrics = EngineMetrics()
        begun = time.perf_counter()
        written = [
            completion
            for completions in engine.generate(prompts, metrics=metrics, **how)
            for completion in completions
        ]
        seconds = time.perf_counter() - begun
        self.done.append(metrics)
        lengths = {c.id: len(c.tokens) for c in written}
        if [lengths[prompt.id] for prompt in prompts] != list(workload.new_tokens):
            raise RuntimeError("the texts have other lengths than they were to have")
        return Timing(
            seconds=seconds,
            prefill_seconds=metrics.prefill_seconds,
            decode_seconds=metrics.decode_seconds,
            decoded_tokens=metrics.new_tokens,
        )


def _prompts(workload: Workload) -> list[Request]:
    """Returns the prompts; without rules each asks for all of its new tokens."""
    if workload.rules is not None:
        return list(workload.rules.prompts)
    return [
        Request(
            id=str(number),
            sample_index=number,
            token_ids=tuple(tokens),
            max_new_tokens=new,
        )
        for number, (tokens, new) in enumerate(
            zip(workload.prompts, workload.new_tokens, strict=True)
        )
    ]


def _rules(workload: Workload) -> dict[str, Any]:
    if workload.rules is not None:
        rules = workload.rules
        return {
            "sampling_params": rules.sampling_params,
            "stop_criteria": rules.stop_criteria,
            "key": rules.key,
        }
    return {
        "sampling_params": SamplingParams(
            max_new_tokens=max(workload.new_tokens), temperature=0.0
        ),
        "stop_criteria": StopCriteria(eos=(), stops=(), decode=str),
        "key": jax.random.key(0),
    }
