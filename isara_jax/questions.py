"""Step (a): the model writes new questions after demonstrations drawn at random."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isara_jax.engine import Decoding
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
    decoding: Decoding,
    sampler: Sampler,
    folder: RoundFolder,
) -> list[Question]:
    """Writes `candidates` questions into the round's folder; round t has t pools.

    As many as `questions_per_context` of them follow the same demonstrations: 1 in the
    paper.
    """
    round = len(pools)
    counts = demo_counts(demos, round=round)
    opening = sampler.template.open_question()
    turns = []
    for number in range(candidates):
        draw = number // questions_per_context
        rng = np.random.default_rng([sampler.seed, round, Step.QUESTIONS, draw])
        turns.append(
            OpenTurn(
                id=f"r{round:02d}-{number:04d}",
                number=number,
                opening=opening,
                demos=random_demos(pools, counts, rng=rng),
            )
        )
    written = sampler.prompts(turns, new_tokens=decoding.max_new_tokens)
    demos_of = {prompt.id: used for prompt, used in written}
    records = sample_into(
        folder.questions,
        [prompt for prompt, _ in written],
        model=model,
        sampler=sampler,
        decoding=decoding,
        round=round,
        step=Step.QUESTIONS,
        stage=f"round {round}: questions",
        describe=lambda completion: {
            "id": completion.id,
            "question": completion.text,
            "demos": list(demos_of[completion.id]),
            **sampled(completion, parent=f"M_{round - 1}"),
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
