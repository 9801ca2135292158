"""Stands in for the engine's `generate_batch`: a sample's text follows from its id."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from isara_jax.engine.batches import Batch
from isara_jax.engine.generate import Completion


class Interrupted(Exception):
    """What a run that is killed between two batches looks like from inside."""


@dataclass
class ScriptedEngine:
    """Writes `text_of(id)`; keeps the batches and keys that it was called with."""

    text_of: Callable[[str], str] = "What is {} then, my friend?".format
    batches: list[Batch] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    decodings: list[Any] = field(default_factory=list)
    most_batches: int = 1000

    def __call__(self, model, batch, *, decoding, ending, key, mesh, check):
        check()
        if len(self.batches) == self.most_batches:
            raise Interrupted
        self.batches.append(batch)
        self.decodings.append(decoding)
        self.keys.append(jax.random.key_data(key).tolist())
        self.decodings.append(decoding)
        return [self.completion(prompt) for prompt in batch.prompts]

    def completion(self, prompt):
        return Completion(
            id=prompt.id,
            number=prompt.number,
            text=self.text_of(prompt.id),
            tokens=(7, 8),
            prompt_tokens=len(prompt.tokens),
            log_probability=-1.5,
            finish="eos",
        )

    @property
    def prompts(self):
        """The prompts it has continued, by id."""
        return {prompt.id: prompt for b in self.batches for prompt in b.prompts}
