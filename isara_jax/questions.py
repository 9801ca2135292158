"""Step (a): the model writes new questions after demonstrations drawn at random."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isara_jax.engine import SamplingParams
from isara_jax.examples import Example, Pool, Question, demos_per_pool
from isara_jax.generation import (
    Generator,
    SampleKind,
    completion_fields,
    generate_to_records,
)
from isara_jax.models import Decoder
from isara_jax.prompts import PromptBuilder, PromptTurn
from isara_jax.run import RoundFolder


def draft_questions(
    model: Callable[[], Decoder],
    pools: Sequence[Pool],
    *,
    candidates: int,
    demos: int,
    questions_per_context: int,
    sampling_params: SamplingParams,
    prompt_builder: PromptBuilder,
    generator: Generator,
    folder: RoundFolder,
) -> list[Question]:
    """Writes `candidates` questions into the round's folder; round t has t pools.

    `questions_per_context` of them, 1 in the paper, follow the same draw of
    demonstrations.
    """
    round_index = len(pools)
    per_pool = demos_per_pool(demos, round_index=round_index)
    turns = []
    for index in range(candidates):
        draw = index // questions_per_context
        rng = np.random.default_rng(
            [generator.seed, round_index, SampleKind.QUESTION, draw]
        )
        turns.append(
            PromptTurn(
                id=f"r{round_index:02d}-{index:04d}",
                sample_index=index,
                text=prompt_builder.template.question_prompt(),
                demos=draw_demos(pools, per_pool, rng=rng),
            )
        )
    prompts = prompt_builder.build(turns, max_new_tokens=sampling_params.max_new_tokens)
    demos_of = {prompt.id: prompt.demos for prompt in prompts}
    records = generate_to_records(
        folder.questions,
        prompts,
        model=model,
        generator=generator,
        sampling_params=sampling_params,
        round_index=round_index,
        kind=SampleKind.QUESTION,
        stage=f"round {round_index}: questions",
        to_record=lambda completion: {
            "id": completion.id,
            "question": completion.text,
            "demos": list(demos_of[completion.id]),
            **completion_fields(completion, parent=f"M_{round_index - 1}"),
        },
    )
    return [_question(record) for record in records]


def draw_demos(
    pools: Sequence[Pool], per_pool: Sequence[int], *, rng: np.random.Generator
) -> list[Example]:
    """Draws from each pool without replacement; a smaller pool gives all it has."""
    drawn: list[Example] = []
    for pool, count in zip(pools, per_pool, strict=True):
        indices = rng.permutation(len(pool))[:count]
        drawn += [pool.examples[index] for index in indices]
    return drawn


def _question(record: dict[str, Any]) -> Question:
    return Question(
        id=record["id"],
        sample_index=int(record["id"].rpartition("-")[2]),
        text=record["question"],
        demos=tuple(record["demos"]),
    )
