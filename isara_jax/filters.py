"""Step (c): fixed rules on the text of a pair, a function each.

A pair is kept if no rule rejects it; a rejected one is recorded with the first rule
that does. There is no judge and no regeneration (docs/method.md, "Filter").
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isara_jax.errors import FieldError
from isara_jax.examples import Candidate, Example, Pool
from isara_jax.rouge import rouge_l
from isara_jax.run import RoundFolder
from isara_jax.runtime.files import Records, write_jsonl


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """The limits of the rules."""

    max_demo_rouge: float = field(
        default=0.7,
        metadata={
            "help": "reject a question whose ROUGE-L to one of its own demonstration "
            "questions is above this"
        },
    )
    min_question_words: int = field(
        default=5, metadata={"help": "reject a question of fewer words"}
    )
    min_answer_words: int = field(
        default=5, metadata={"help": "reject an answer of fewer words"}
    )
    unfinished_answers: bool = field(
        default=True,
        metadata={
            "help": "let answers pass that were cut at their greatest length, as the "
            "paper does; what is trained on then ends in mid-sentence"
        },
    )
    earlier_duplicates: bool = field(
        default=True,
        metadata={
            "help": "reject a question that a seed or an earlier round has already; "
            "the paper looks at the round's own questions only"
        },
    )

    def __post_init__(self) -> None:
        if not 0 <= self.max_demo_rouge <= 1:
            raise FieldError(
                "max_demo_rouge", self.max_demo_rouge, "must be from 0 to 1"
            )
        for name in ("min_question_words", "min_answer_words"):
            if getattr(self, name) < 0:
                raise FieldError(name, getattr(self, name), "must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class FilterContext:
    """What a rule may compare a candidate with.

    Attributes:
      kept, earlier: by normalized question, the id of the pair that has it: of this
        round, and of the seeds and earlier rounds.
      demo_questions: the questions of the candidate's own prompt.
    """

    config: FilterConfig
    kept: Mapping[str, str]
    earlier: Mapping[str, str]
    demo_questions: Sequence[str]


Rule = Callable[[Candidate, FilterContext], str | None]
"""Returns why it rejects a candidate, or None."""


def duplicate_in_round(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question that this round has kept already."""
    same = context.kept.get(_normalize(candidate.question))
    return same and f"{same} of this round asks the same"


def duplicate_of_earlier(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question of the seeds or an earlier round, unless these may repeat."""
    if not context.config.earlier_duplicates:
        return None
    same = context.earlier.get(_normalize(candidate.question))
    return same and f"{same} asks the same"


def copy_of_demo(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question too close to one of its own demonstrations."""
    limit = context.config.max_demo_rouge
    for demo in context.demo_questions:
        similarity = rouge_l(demo, candidate.question)
        if similarity > limit:
            return f"ROUGE-L {similarity:.2f} > {limit:g} to the demonstration {demo!r}"
    return None


def short_question(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question of too few words."""
    return _too_short(candidate.question, context.config.min_question_words)


def short_answer(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects an answer of too few words."""
    return _too_short(candidate.answer, context.config.min_answer_words)


def unfinished_answer(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects an answer cut at its maximum length, unless such answers pass."""
    if not context.config.unfinished_answers and candidate.answer_finish == "length":
        return "the answer was cut at its greatest length"
    return None


def answer_in_question(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects an answer that only repeats a part of its question."""
    del context
    if candidate.answer in candidate.question:
        return "the answer is a part of the question"
    return None


RULES: tuple[Rule, ...] = (
    duplicate_in_round,
    duplicate_of_earlier,
    copy_of_demo,
    short_question,
    short_answer,
    unfinished_answer,
    answer_in_question,
)


def keep(
    candidates: Sequence[Candidate],
    pools: Sequence[Pool],
    *,
    config: FilterConfig,
    folder: RoundFolder,
) -> Pool:
    """Writes the kept and the rejected pairs into the round's folder; returns D_t.

    The rules see the candidates in their order. `kept.jsonl` is written last, so where
    it exists the step is done.
    """
    if not folder.kept.exists():
        kept, rejected = apply_rules(
            candidates, pools, config=config, parent=f"M_{len(pools) - 1}"
        )
        write_jsonl(folder.rejected, rejected)
        write_jsonl(folder.kept, kept)
    return read_kept(folder, round_index=len(pools))


def read_kept(folder: RoundFolder, *, round_index: int) -> Pool:
    """Reads D_t from a round's kept pairs."""
    return Pool(
        round_index=round_index,
        examples=tuple(
            Example(question=r["question"], answer=r["answer"], origin=r["id"])
            for r in Records(folder.kept).read()
        ),
    )


def apply_rules(
    candidates: Sequence[Candidate],
    pools: Sequence[Pool],
    *,
    config: FilterConfig,
    parent: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the records of the kept and of the rejected pairs."""
    text_of = {e.origin: e.question for pool in pools for e in pool.examples}
    earlier = {_normalize(text): origin for origin, text in text_of.items()}
    kept_questions: dict[str, str] = {}
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for candidate in candidates:
        context = FilterContext(
            config=config,
            kept=kept_questions,
            earlier=earlier,
            demo_questions=[text_of[origin] for origin in candidate.question_demos],
        )
        record = _record(candidate, parent=parent)
        rejection = first_rejection(candidate, context)
        if rejection is None:
            kept_questions[_normalize(candidate.question)] = candidate.id
            kept.append(record)
        else:
            rejected.append(record | rejection)
    return kept, rejected


def first_rejection(
    candidate: Candidate, context: FilterContext
) -> dict[str, str] | None:
    """Returns the name of the first rule that rejects, and why; None: no rule does."""
    for rule in RULES:
        reason = rule(candidate, context)
        if reason:
            return {"rule": rule.__name__, "reason": reason}
    return None


def _record(candidate: Candidate, *, parent: str) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "question": candidate.question,
        "answer": candidate.answer,
        "question_demos": list(candidate.question_demos),
        "answer_demos": list(candidate.answer_demos),
        "nearest_seed": candidate.nearest_seed,
        "nearest_seed_similarity": candidate.nearest_seed_similarity,
        "parent": parent,
    }


def _too_short(text: str, least: int) -> str | None:
    words = len(text.split())
    return f"{words} words, at least {least} are asked for" if words < least else None


def _normalize(question: str) -> str:
    return " ".join(question.casefold().split())
