"""Step (a): the model writes new questions after demonstrations drawn at random."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isara_jax.engine import SamplingParams
from isara_jax.examples import Example, Pool, Question, demo_counts
from isara_jax.generation import OpenTurn, Sampler, Step, sample_into, sampled
from isara_jax.models import Decoder
from isara_jax.run import RoundFolder


def draft_questions(
    model: Callable[[], Decoder],
    pools: Sequence[Pool],
    *,
    candidates: int,
    demos: int,
    questions_per_context: int,
    sampling_params: SamplingParams,
    sampler: Sampler,
    folder: RoundFolder,
) -> list[Question]:
    """Writes `candidates` questions into the round's folder; round t has t pools.

    As many as `questions_per_context` of them follow the same demonstrations: 1 in the
    paper.
    """
    round_index = len(pools)
    counts = demo_counts(demos, round_index=round_index)
    opening = sampler.template.open_question()
    turns = []
    for number in range(candidates):
        draw = number // questions_per_context
        rng = np.random.default_rng([sampler.seed, round_index, Step.QUESTIONS, draw])
        turns.append(
            OpenTurn(
                id=f"r{round_index:02d}-{number:04d}",
                number=number,
                opening=opening,
                demos=random_demos(pools, counts, rng=rng),
            )
        )
    written = sampler.prompts(turns, new_tokens=sampling_params.max_new_tokens)
    demos_of = {prompt.id: used for prompt, used in written}
    records = sample_into(
        folder.questions,
        [prompt for prompt, _ in written],
        model=model,
        sampler=sampler,
        sampling_params=sampling_params,
        round_index=round_index,
        step=Step.QUESTIONS,
        stage=f"round {round_index}: questions",
        describe=lambda completion: {
            "id": completion.id,
            "question": completion.text,
            "demos": list(demos_of[completion.id]),
            **sampled(completion, parent=f"M_{round_index - 1}"),
        },
    )
    return [_question(record) for record in records]


def random_demos(
    pools: Sequence[Pool], counts: Sequence[int], *, rng: np.random.Generator
) -> list[Example]:
    """Draws from every pool, without replacement, as many as it has to give."""
    drawn: list[Example] = []
    for pool, count in zip(pools, counts, strict=True):
        places = rng.permutation(len(pool))[:count]
        drawn += [pool.examples[place] for place in places]
    return drawn


def _question(record: dict[str, Any]) -> Question:
    return Question(
        id=record["id"],
        number=int(record["id"].rpartition("-")[2]),
        text=record["question"],
        demos=tuple(record["demos"]),
    )
