"""The prompts of a run's first round, and what the package writes after them.

A run's flags say all that there is to a round: its seeds, templates, demonstrations,
retrieval and decoding rules. Questions are written by the package, and the prompts of
the answers hold these questions.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.generation.workloads import Rules, Workload
from isara_jax.answers import answer_questions
from isara_jax.config import Config, config_from_flags, define_flags
from isara_jax.engine import Completion, Engine, Request
from isara_jax.examples import read_seeds
from isara_jax.generation import Generator, make_stop_criteria
from isara_jax.models import Decoder
from isara_jax.models.checkpoints import OpenedModel
from isara_jax.prompts import PromptBuilder, make_template
from isara_jax.questions import draft_questions
from isara_jax.retrieval import load_retriever
from isara_jax.run import Workdir
from isara_jax.runtime import make_mesh

# Rows of a padded batch.
ROWS = 16


def read_run(flagfile: str, *, shrink: int = 1) -> Config:
    """Reads a run's settings, its number of candidates divided by `shrink`."""
    values = flags.FlagValues()
    define_flags(values)
    values(["run", f"--flagfile={flagfile}"])
    if shrink > 1:
        values.candidates = max(2, values.candidates // shrink)
    return config_from_flags(values)


def drafting_workloads(
    config: Config, model: Decoder, *, source: OpenedModel
) -> list[Workload]:
    """Writes a first round, and returns its questions and answers as workloads.

    Each workload has the prompts of its step and, as `new_tokens`, the lengths that the
    texts turned out to have; its rules give the same texts again.
    """
    tokenizer = source.tokenizer
    template = make_template(config.prompts.template, render=tokenizer.render_chat)
    prompt_builder = PromptBuilder(
        tokenizer=tokenizer,
        template=template,
        context=model.config.context,
        demo_tokens=config.prompts.demo_tokens,
        demo_order=config.prompts.demo_order,
    )
    generator = RecordingGenerator(
        mesh=make_mesh(data=1, model=1),
        seed=config.runtime.seed,
        slots=config.engine.slots,
        context=model.config.context,
        stop_criteria=make_stop_criteria(tokenizer, template),
        check=lambda: None,
        workloads=[],
    )
    seeds = read_seeds(Path(config.run.seeds), at_least=config.loop.demos)
    retriever = load_retriever(config.retrieval)
    with tempfile.TemporaryDirectory() as folder:
        round_folder = Workdir(Path(folder)).round(1)
        questions = draft_questions(
            lambda: model,
            [seeds],
            candidates=config.loop.candidates,
            demos=config.loop.demos,
            questions_per_context=config.loop.questions_per_context,
            sampling_params=config.question,
            prompt_builder=prompt_builder,
            generator=generator,
            folder=round_folder,
        )
        answer_questions(
            lambda: model,
            questions,
            [seeds],
            demos=config.loop.demos,
            sampling_params=config.answer,
            prompt_builder=prompt_builder,
            generator=generator,
            retriever=retriever,
            folder=round_folder,
        )
    return generator.workloads


@dataclass(frozen=True, kw_only=True)
class RecordingGenerator(Generator):
    """A generator that keeps what was written as workloads."""

    workloads: list[Workload]

    def engine(self, model: Decoder) -> Engine:
        return RecordingEngine(**vars(super().engine(model)), workloads=self.workloads)


@dataclass(frozen=True, kw_only=True)
class RecordingEngine(Engine):
    """An engine that keeps what it wrote as a workload."""

    workloads: list[Workload]

    def generate(
        self, prompts: Sequence[Request], **how: Any
    ) -> Iterator[list[Completion]]:
        lengths = {}
        for completions in super().generate(prompts, **how):
            lengths |= {c.id: len(c.tokens) for c in completions}
            yield completions
        rules = Rules(
            sampling_params=how["sampling_params"],
            stop_criteria=how["stop_criteria"],
            key=how["key"],
            prompts=tuple(prompts),
        )
        self.workloads.append(
            Workload(
                prompts=[prompt.token_ids for prompt in prompts],
                new_tokens=[lengths[prompt.id] for prompt in prompts],
                rows=ROWS,
                measure="seconds",
                rules=rules,
            )
        )
