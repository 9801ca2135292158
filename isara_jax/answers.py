"""Step (b): the model answers its questions after their nearest neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from isara_jax.engine import SamplingParams
from isara_jax.examples import Candidate, Example, Pool, Question, demo_counts
from isara_jax.generation import OpenTurn, Sampler, Step, sample_into, sampled
from isara_jax.models import Decoder
from isara_jax.retrieval import Embedder, IndexMethod, Neighbours, build_index
from isara_jax.run import RoundFolder


@dataclass(frozen=True, kw_only=True)
class Retriever:
    """Finds the examples of a pool whose questions are nearest to a text."""

    embedder: Embedder
    method: IndexMethod

    def nearest(
        self, pool: Pool, queries: Float[np.ndarray, "Q D"], *, count: int
    ) -> Neighbours:
        """Searches the pool by the embedding of the question alone (PAPER.md 1)."""
        vectors = self.embedder.embed([e.question for e in pool.examples])
        index = build_index(vectors, method=self.method)
        return index.nearest(queries, k=min(count, len(pool)))


def answer_questions(
    model: Callable[[], Decoder],
    questions: Sequence[Question],
    pools: Sequence[Pool],
    *,
    demos: int,
    sampling_params: SamplingParams,
    sampler: Sampler,
    retriever: Retriever,
    folder: RoundFolder,
) -> list[Candidate]:
    """Answers the round's questions into its folder.

    The demonstrations come nearest first, pool after pool. A question of no words gets
    no answer: it is left for the filter with an empty one.
    """
    round_index = len(pools)
    asked = [question for question in questions if question.text]
    queries = retriever.embedder.embed([question.text for question in asked])
    demos_of = nearest_demos(
        pools,
        queries,
        counts=demo_counts(demos, round_index=round_index),
        retriever=retriever,
    )
    seeds = retriever.nearest(pools[0], queries, count=1)
    written = sampler.prompts(
        [
            OpenTurn(
                id=question.id,
                number=question.number,
                opening=sampler.template.open_answer(question.text),
                demos=found,
            )
            for question, found in zip(asked, demos_of, strict=True)
        ],
        new_tokens=sampling_params.max_new_tokens,
    )
    facts = {
        prompt.id: {
            "demos": list(used),
            "nearest_seed": pools[0].examples[seeds.indices[place, 0]].origin,
            "nearest_seed_similarity": round_off(float(seeds.similarities[place, 0])),
        }
        for place, (prompt, used) in enumerate(written)
    }
    text_of = {question.id: question.text for question in asked}
    records = sample_into(
        folder.answers,
        [prompt for prompt, _ in written],
        model=model,
        sampler=sampler,
        sampling_params=sampling_params,
        round_index=round_index,
        step=Step.ANSWERS,
        stage=f"round {round_index}: answers",
        describe=lambda completion: {
            "id": completion.id,
            "question": text_of[completion.id],
            "answer": completion.text,
            **facts[completion.id],
            **sampled(completion, parent=f"M_{round_index - 1}"),
        },
    )
    answered = {record["id"]: record for record in records}
    return [_candidate(question, answered.get(question.id)) for question in questions]


def nearest_demos(
    pools: Sequence[Pool],
    queries: Float[np.ndarray, "Q D"],
    *,
    counts: Sequence[int],
    retriever: Retriever,
) -> list[list[Example]]:
    """Returns every query's nearest examples of each pool, pool after pool."""
    demos: list[list[Example]] = [[] for _ in queries]
    for pool, count in zip(pools, counts, strict=True):
        if not len(pool) or not len(queries):
            continue
        found = retriever.nearest(pool, queries, count=count)
        for place, row in enumerate(found.indices):
            demos[place] += [pool.examples[index] for index in row]
    return demos


def round_off(similarity: float) -> float:
    """Keeps the digits of a cosine that fp32 on another machine would agree on."""
    return round(similarity, 4)


def _candidate(question: Question, record: dict[str, Any] | None) -> Candidate:
    found = record or {}
    return Candidate(
        id=question.id,
        question=question.text,
        answer=found.get("answer", ""),
        answer_finish=found.get("finish", ""),
        question_demos=question.demos,
        answer_demos=tuple(found.get("demos", ())),
        nearest_seed=found.get("nearest_seed", ""),
        nearest_seed_similarity=found.get("nearest_seed_similarity", 0.0),
    )
