"""Stands in for the engine: a sample's text follows from its id."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from isara_jax.engine.engine import Engine
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.completion import Completion
from isara_jax.engine.scheduler import plan_groups


class Interrupted(Exception):
    """What a run that is killed between two steps looks like from inside."""


@dataclass
class ScriptedEngine:
    """Writes `text_of(id)`; keeps the batches and keys that it was called with."""

    text_of: Callable[[str], str] = "What is {} then, my friend?".format
    batches: list[tuple[Request, ...]] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    decodings: list[Any] = field(default_factory=list)
    most_batches: int = 1000

    def take_over(self, monkeypatch):
        """Writes in the place of every engine, as many samples at once as its slots."""
        scripted = self

        def generate(engine, prompts, **rest):
            return scripted.generate(engine, prompts, **rest)

        monkeypatch.setattr(Engine, "generate", generate)

    def generate(
        self,
        engine,
        prompts,
        *,
        sampling_params,
        stop_criteria,
        key,
        done=(),
        metrics=None,
    ):
        """The slots end together; the shortest prompts come first."""
        planned = plan_groups(
            prompts,
            slots=engine.slots,
            row_multiple=1,
            max_new_tokens=sampling_params.max_new_tokens,
            context=engine.context,
        )
        assert sum(len(group.planned) for group in planned) == len(prompts)
        waiting = sorted((len(p.token_ids), p.sample_index, p) for p in prompts)
        waiting = [prompt for *_, prompt in waiting if prompt.id not in done]
        for first in range(0, len(waiting), engine.slots):
            engine.check()
            if len(self.batches) == self.most_batches:
                raise Interrupted
            batch = tuple(waiting[first : first + engine.slots])
            self.batches.append(batch)
            self.decodings.append(sampling_params)
            self.keys.append(jax.random.key_data(key).tolist())
            yield [self.completion(prompt) for prompt in batch]

    def completion(self, prompt):
        return Completion(
            id=prompt.id,
            sample_index=prompt.sample_index,
            text=self.text_of(prompt.id),
            tokens=(7, 8),
            prompt_tokens=len(prompt.token_ids),
            log_probability=-1.5,
            finish_reason="eos",
        )

    @property
    def prompts(self):
        """The prompts it has continued, by id."""
        return {prompt.id: prompt for batch in self.batches for prompt in batch}
