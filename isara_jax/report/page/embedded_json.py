"""The texts of a run as JSON inside the page, which its script shows.

A model wrote them, so they are untrusted. The JSON escapes `<`, `>` and `&`, so no text
can end the script element, and the script inserts them as text only.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from isara_jax.report.run_data import Answer, Evaluation, RunData, Sample

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def embed_run(run: RunData) -> Markup:
    """Returns seeds, samples and held-out answers as JSON that is safe inside HTML."""
    samples = [
        sample for one in run.rounds for sample in sorted_by_id(one.kept, one.rejected)
    ]
    return json_for_html(
        {
            "seeds": [[seed.id, seed.question, seed.answer] for seed in run.seeds],
            "samples": [_sample(sample) for sample in samples],
            "models": [model.model for model in run.evaluations],
            "heldout": _heldout(run.evaluations),
        }
    )


def json_for_html(value: Any) -> Markup:
    """Returns JSON in ASCII without the characters that mean something to HTML."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))  # nothing in it is left to escape


def sorted_by_id(kept: Sequence[Sample], rejected: Sequence[Sample]) -> list[Sample]:
    """Returns the samples of a round in the order of their ids."""
    return sorted((*kept, *rejected), key=lambda sample: sample.id)


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "round": sample.round_index,
        "rule": sample.rule,
        "reason": sample.reason,
        "question": sample.question,
        "answer": sample.answer,
        "question_demos": sample.question_demos,
        "answer_demos": sample.answer_demos,
        "seed": sample.nearest_seed,
        "similarity": _number(sample.nearest_seed_similarity),
    }


def _heldout(models: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Returns every held-out question with each model's answer, or null."""
    by_model = [
        {answer.question: answer for answer in model.answers} for model in models
    ]
    first_seen = {q: a for answers in reversed(by_model) for q, a in answers.items()}
    order = dict.fromkeys(q for answers in by_model for q in answers)
    return [
        {
            "question": question,
            "reference": first_seen[question].best_reference,
            "answers": [_answer(answers.get(question)) for answers in by_model],
        }
        for question in order
    ]


def _answer(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {
        "text": answer.answer,
        "nll": _number(answer.nll),
        "rouge_l_difference": _number(answer.rouge_l_difference),
        "mc1": _number(answer.mc1),
        "mc2": _number(answer.mc2),
    }


def _number(value: float | None) -> float | None:
    """Returns the number rounded, or None if JSON cannot represent it."""
    if value is None or not math.isfinite(value):
        return None
    return round(value, 4)
