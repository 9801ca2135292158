"""Runs a step's prompts through the engine into a records file, and picks up again.

The batches of a step follow from its prompts alone, and a batch's records are written
together; so what a killed run left is a whole number of batches, perhaps a torn one,
and the rest is sampled as if nothing had happened (DESIGN 5).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import jax
from jaxtyping import Array, Key

from isara_jax.engine.batches import Batch, Prompt, plan
from isara_jax.engine.beam import beam_batch
from isara_jax.engine.decoding import Decoding
from isara_jax.engine.generate import Completion, Ending, generate_batch
from isara_jax.examples import Example
from isara_jax.models.decoder import Decoder
from isara_jax.prompts import Template, assemble
from isara_jax.runtime.mesh import Mesh
from isara_jax.runtime.progress import progress
from isara_jax.runtime.tokenizer import Tokenizer
from isara_jax.workdir import Records


class Step(IntEnum):
    """What a sample is for; folded into its key."""

    QUESTIONS = 0
    ANSWERS = 1
    EVALUATION = 2


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """What every step that samples shares; `check` may raise to stop the run."""

    tokenizer: Tokenizer
    template: Template
    mesh: Mesh
    seed: int
    slots: int
    demo_tokens: int
    context: int
    check: Callable[[], None]

    def prompt(
        self,
        demos: Sequence[Example],
        opening: str,
        *,
        id: str,
        number: int,
        new_tokens: int,
    ) -> tuple[Prompt, tuple[str, ...]]:
        """Writes a prompt; returns it with the ids of the demos that it holds.

        They leave room in the context for the open turn and `new_tokens` after it.
        """
        bos = self.tokenizer.bos
        rest = len(bos) + len(self.tokenizer.encode(opening)) + new_tokens
        ids, used = assemble(
            demos,
            opening,
            template=self.template,
            encode=self.tokenizer.encode,
            budget=min(self.demo_tokens, self.context - rest),
        )
        tokens = ids if tuple(ids[: len(bos)]) == bos else [*bos, *ids]
        prompt = Prompt(id=id, number=number, tokens=tuple(tokens))
        return prompt, tuple(demo.origin for demo in used)

    def answer_tokens(self, answer: str) -> tuple[int, ...]:
        """Returns an answer as it is trained and scored, its end included."""
        closing = self.tokenizer.encode(self.template.closing(answer))
        return (*closing, self.tokenizer.eos[0])

    def key(self, *, round: int, step: Step) -> Key[Array, ""]:
        """Returns fold_in(seed, round, step); the sample's number comes last."""
        key = jax.random.fold_in(jax.random.key(self.seed), round)
        return jax.random.fold_in(key, int(step))

    def batches(
        self, prompts: Sequence[Prompt], decoding: Decoding
    ) -> tuple[Batch, ...]:
        """Cuts the prompts into the batches of their step; a beam takes a slot."""
        return plan(
            prompts,
            slots=self.slots // decoding.beams,
            row_multiple=self.mesh.shape["data"],
            max_new_tokens=decoding.max_new_tokens,
            context=self.context,
        )

    def continue_batch(
        self,
        model: Decoder,
        batch: Batch,
        *,
        decoding: Decoding,
        key: Key[Array, ""],
    ) -> list[Completion]:
        """Continues the prompts of one batch."""
        continued = beam_batch if decoding.beams > 1 else generate_batch
        return continued(
            model,
            batch,
            decoding=decoding,
            ending=Ending(
                eos=self.tokenizer.eos,
                stops=self.template.stops,
                decode=self.tokenizer.decode,
            ),
            key=key,
            mesh=self.mesh,
            check=self.check,
        )


def sample_into(
    records: Records,
    prompts: Sequence[Prompt],
    *,
    model: Callable[[], Decoder],
    sampler: Sampler,
    decoding: Decoding,
    round: int,
    step: Step,
    stage: str,
    describe: Callable[[Completion], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Samples what the records do not hold yet; returns all of them in order of id.

    `model` is called only if something is left to sample.
    """
    batches = sampler.batches(prompts, decoding)
    whole = _whole_batches(records, batches)
    done = sum(len(batch.prompts) for batch in batches[:whole])
    if whole < len(batches):
        records.keep_first(done)
        key, loaded = sampler.key(round=round, step=step), model()
        with progress(stage, total=len(prompts), done=done, unit="samples") as advance:
            for batch in batches[whole:]:
                completions = sampler.continue_batch(
                    loaded, batch, decoding=decoding, key=key
                )
                records.append(describe(completion) for completion in completions)
                advance(len(completions))
    return sorted(records.read(), key=lambda record: str(record["id"]))


def sampled(completion: Completion, *, parent: str) -> dict[str, Any]:
    """Returns the fields that every sample's record has."""
    return {
        "prompt_tokens": completion.prompt_tokens,
        "new_tokens": len(completion.tokens),
        "log_probability": completion.log_probability,
        "finish": completion.finish,
        "parent": parent,
    }


def _whole_batches(records: Records, batches: Sequence[Batch]) -> int:
    written, end = [record["id"] for record in records.read()], 0
    for number, batch in enumerate(batches):
        ids = [prompt.id for prompt in batch.prompts]
        if written[end : end + len(ids)] != ids:
            return number
        end += len(ids)
    return len(batches)
