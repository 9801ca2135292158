"""A model on the held-out items: its answers, and how likely it finds the references.

Zero-shot: the prompt is the open turn alone, decoded greedily (PAPER.md 1, 'Decoding').
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isara_jax.engine import SamplingParams, Scored, score
from isara_jax.errors import FieldError
from isara_jax.evaluation.metrics import ScoredItem, summarise
from isara_jax.examples import HeldOut
from isara_jax.generation import Sampler, Step, sample_into
from isara_jax.models import Decoder
from isara_jax.runtime import progress
from isara_jax.runtime.files import Records, write_json

# Rows are scored whole, with attention over all of their positions.
SCORED_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How models are evaluated."""

    evaluation_tokens: int = field(
        default=200, metadata={"help": "longest greedy answer to a held-out question"}
    )
    baselines: bool = field(
        default=True,
        metadata={
            "help": "evaluate the pretrained model, and SFT on the seeds alone, too"
        },
    )

    def __post_init__(self) -> None:
        if self.evaluation_tokens < 1:
            raise FieldError(
                "evaluation_tokens", self.evaluation_tokens, "must be at least 1"
            )

    @property
    def sampling_params(self) -> SamplingParams:
        return SamplingParams(
            max_new_tokens=self.evaluation_tokens, temperature=0.0, top_k=0
        )


def evaluate(
    model: Callable[[], Decoder],
    items: Sequence[HeldOut],
    *,
    name: str,
    config: EvaluationConfig,
    sampler: Sampler,
    result: Path,
) -> None:
    """Writes `evaluation.json`; does nothing where it is there already.

    `model` is called only if something is left to do. The answers grow beside the
    result, so that a killed evaluation does not start over.
    """
    if result.exists() or not items:
        return
    answers = _answers(
        model, items, name=name, config=config, sampler=sampler, at=result
    )
    log_probabilities, tokens = _reference_scores(
        model(), items, name=name, sampler=sampler
    )
    scored = [
        ScoredItem(
            question=item.question,
            answer=answer,
            best_reference=item.true[0],
            true=item.true,
            false=item.false,
            nll_total=-sum(values[: len(item.true)]),
            nll_tokens=sum(counts[: len(item.true)]),
            true_log_probabilities=values[: len(item.true)],
            false_log_probabilities=values[len(item.true) :],
        )
        for item, answer, values, counts in zip(
            items, answers, log_probabilities, tokens, strict=True
        )
    ]
    metrics, each = summarise(scored)
    write_json(
        result,
        {"model": name, "items": len(items), "metrics": metrics, "answers": each},
    )


def _answers(
    model: Callable[[], Decoder],
    items: Sequence[HeldOut],
    *,
    name: str,
    config: EvaluationConfig,
    sampler: Sampler,
    at: Path,
) -> list[str]:
    prompts = [
        sampler.prompt(
            sampler.template.open_answer(item.question),
            id=f"heldout-{number:04d}",
            number=number,
        )
        for number, item in enumerate(items)
    ]
    records = sample_into(
        Records(at.with_name("heldout_answers.jsonl")),
        prompts,
        model=model,
        sampler=sampler,
        sampling_params=config.sampling_params,
        round_index=0,
        step=Step.EVALUATION,
        stage=f"{name}: held-out answers",
        describe=lambda completion: {
            "id": completion.id,
            "answer": completion.text,
            "finish": completion.finish,
        },
    )
    return [str(record["answer"]) for record in records]


def _reference_scores(
    model: Decoder, items: Sequence[HeldOut], *, name: str, sampler: Sampler
) -> tuple[list[tuple[float, ...]], list[list[int]]]:
    """Returns the references' log-probabilities and their lengths in tokens."""
    asked = [_scored(item, sampler) for item in items]
    found: list[tuple[float, ...]] = []
    stage = f"{name}: held-out references"
    with progress(stage, total=len(items), done=0, unit="items") as advance:
        for values in score(
            model,
            asked,
            slots=min(sampler.slots, SCORED_AT_ONCE),
            mesh=sampler.mesh,
            check=sampler.check,
        ):
            found.append(values)
            advance(1)
    return found, [[len(text) for text in item.continuations] for item in asked]


def _scored(item: HeldOut, sampler: Sampler) -> Scored:
    opening = sampler.template.open_answer(item.question)
    prompt = sampler.prompt(opening, id="", number=0)
    return Scored(
        prompt=prompt.token_ids,
        continuations=tuple(
            sampler.answer_tokens(reference) for reference in (*item.true, *item.false)
        ),
    )
