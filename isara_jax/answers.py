"""Step (b): the model answers its questions after their nearest neighbours."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from isara_jax.engine import SamplingParams
from isara_jax.examples import Candidate, Example, Pool, Question, demos_per_pool
from isara_jax.generation import (
    Generator,
    SampleKind,
    completion_fields,
    generate_to_records,
)
from isara_jax.models import Decoder
from isara_jax.prompts import PromptBuilder, PromptTurn
from isara_jax.retrieval import Retriever
from isara_jax.run import RoundFolder

# Digits of a cosine on which float32 agrees from machine to machine.
COSINE_DIGITS = 4


def answer_questions(
    model: Callable[[], Decoder],
    questions: Sequence[Question],
    pools: Sequence[Pool],
    *,
    demos: int,
    sampling_params: SamplingParams,
    prompt_builder: PromptBuilder,
    generator: Generator,
    retriever: Retriever,
    folder: RoundFolder,
) -> list[Candidate]:
    """Answers the round's questions into its folder; round t has t pools.

    The demonstrations stand pool after pool, nearest first. A blank question is not
    asked; its candidate has a blank answer, which the filter rejects.
    """
    round_index = len(pools)
    asked = [question for question in questions if question.text]
    queries = retriever.embed([question.text for question in asked])
    demos_of = nearest_demos(
        pools,
        queries,
        per_pool=demos_per_pool(demos, round_index=round_index),
        retriever=retriever,
    )
    prompts = prompt_builder.build(
        [
            PromptTurn(
                id=question.id,
                sample_index=question.sample_index,
                text=prompt_builder.template.answer_prompt(question.text),
                demos=nearest,
            )
            for question, nearest in zip(asked, demos_of, strict=True)
        ],
        max_new_tokens=sampling_params.max_new_tokens,
    )
    seeds = retriever.nearest(pools[0], queries, count=1)
    retrieved = {
        prompt.id: {
            "demos": list(prompt.demos),
            "nearest_seed": pools[0].examples[seeds.indices[row, 0]].origin,
            "nearest_seed_similarity": round(
                float(seeds.similarities[row, 0]), COSINE_DIGITS
            ),
        }
        for row, prompt in enumerate(prompts)
    }
    text_of = {question.id: question.text for question in asked}
    records = generate_to_records(
        folder.answers,
        prompts,
        model=model,
        generator=generator,
        sampling_params=sampling_params,
        round_index=round_index,
        kind=SampleKind.ANSWER,
        stage=f"round {round_index}: answers",
        to_record=lambda completion: {
            "id": completion.id,
            "question": text_of[completion.id],
            "answer": completion.text,
            **retrieved[completion.id],
            **completion_fields(completion, parent=f"M_{round_index - 1}"),
        },
    )
    record_of = {record["id"]: record for record in records}
    return [_candidate(question, record_of.get(question.id)) for question in questions]


def nearest_demos(
    pools: Sequence[Pool],
    queries: Float[np.ndarray, "Q D"],
    *,
    per_pool: Sequence[int],
    retriever: Retriever,
) -> list[list[Example]]:
    """Returns every query's nearest examples of each pool, pool after pool."""
    demos: list[list[Example]] = [[] for _ in queries]
    for pool, count in zip(pools, per_pool, strict=True):
        if not len(pool) or not len(queries):
            continue
        neighbours = retriever.nearest(pool, queries, count=count)
        for query, row in enumerate(neighbours.indices):
            demos[query] += [pool.examples[index] for index in row]
    return demos


def _candidate(question: Question, record: dict[str, Any] | None) -> Candidate:
    answered = record or {}
    return Candidate(
        id=question.id,
        question=question.text,
        answer=answered.get("answer", ""),
        answer_finish=answered.get("finish", ""),
        question_demos=question.demos,
        answer_demos=tuple(answered.get("demos", ())),
        nearest_seed=answered.get("nearest_seed", ""),
        nearest_seed_similarity=answered.get("nearest_seed_similarity", 0.0),
    )
