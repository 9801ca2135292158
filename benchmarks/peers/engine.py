"""The package's own engine, as one side of the comparison."""

import time
from typing import Any

import jax

from benchmarks.works import Timing, Work
from isara_jax.engine import (
    Engine,
    EngineMetrics,
    Request,
    SamplingParams,
    StopCriteria,
)
from isara_jax.models import LanguageModel
from isara_jax.runtime import dtype_of, make_mesh
from isara_jax.runtime.hardware import machine_rates


class EngineSide:
    """The engine with so many slots, or as many as a work has rows.

    Each work begins with an empty cache.
    """

    def __init__(self, model: LanguageModel, *, slots: int):
        self.model, self.slots = model, slots
        self.mesh = make_mesh(data=1, model=1)
        self.done: list[EngineMetrics] = []

    def shares(self) -> dict[str, float]:
        """Returns the shares of the machine's bound since this was last asked."""
        dtype = dtype_of(self.model).name
        records = [metrics.record(machine_rates(dtype)) for metrics in self.done]
        self.done = []
        shares = {}
        for phase in ("prefill", "decode"):
            seconds = [record[f"{phase}_seconds"] for record in records]
            found = [record[f"{phase}_share_of_bound"] or 0.0 for record in records]
            bound = sum(a * b for a, b in zip(seconds, found, strict=True))
            if sum(seconds):
                shares[phase] = bound / sum(seconds)
        return shares

    def run(self, work: Work) -> Timing:
        """Does a work.

        Raises:
          RuntimeError: a text has another length than the work says.
        """
        engine = Engine(
            model=self.model,
            mesh=self.mesh,
            slots=max(self.slots, work.rows),
            context=self.model.config.context,
            check=lambda: None,
        )
        prompts, how = _prompts(work), _rules(work)
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
        if [lengths[prompt.id] for prompt in prompts] != list(work.new_tokens):
            raise RuntimeError("the texts have other lengths than they were to have")
        return Timing(
            seconds=seconds,
            prefill_seconds=metrics.prefill_seconds,
            decode_seconds=metrics.decode_seconds,
            decoded_tokens=metrics.new_tokens,
        )


def _prompts(work: Work) -> list[Request]:
    """Returns the prompts; without rules each asks for all of its new tokens."""
    if work.rules is not None:
        return list(work.rules.prompts)
    return [
        Request(
            id=str(number),
            sample_index=number,
            token_ids=tuple(tokens),
            max_new_tokens=new,
        )
        for number, (tokens, new) in enumerate(
            zip(work.prompts, work.new_tokens, strict=True)
        )
    ]


def _rules(work: Work) -> dict[str, Any]:
    if work.rules is not None:
        rules = work.rules
        return {
            "sampling_params": rules.sampling_params,
            "stop_criteria": rules.stop_criteria,
            "key": rules.key,
        }
    return {
        "sampling_params": SamplingParams(
            max_new_tokens=max(work.new_tokens), temperature=0.0
        ),
        "stop_criteria": StopCriteria(eos=(), stops=(), decode=str),
        "key": jax.random.key(0),
    }
