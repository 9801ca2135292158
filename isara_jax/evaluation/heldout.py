"""Evaluates a model on the held-out items: its answers, and its references' likelihood.

Zero-shot: the prompt is the open turn alone, decoded greedily (docs/method.md,
"Evaluation").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isara_jax.engine import LoglikelihoodRequest, SamplingParams, loglikelihood
from isara_jax.errors import FieldError
from isara_jax.evaluation.metrics import ItemResult, compute_metrics
from isara_jax.examples import HeldOut
from isara_jax.generation import Generator, SampleKind, generate_to_records
from isara_jax.models import Decoder
from isara_jax.prompts import PromptBuilder
from isara_jax.runtime import progress
from isara_jax.runtime.files import Records, write_json

# The most rows of a scoring batch, whose attention spans whole rows.
SCORING_ROWS = 32


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
        """Greedy decoding of up to `evaluation_tokens`."""
        return SamplingParams(
            max_new_tokens=self.evaluation_tokens, temperature=0.0, top_k=0
        )


def evaluate(
    model: Callable[[], Decoder],
    items: Sequence[HeldOut],
    *,
    name: str,
    config: EvaluationConfig,
    prompt_builder: PromptBuilder,
    generator: Generator,
    result: Path,
) -> None:
    """Writes `evaluation.json` to `result`, unless it exists or there are no items.

    `model` is called only if something is left to do. The answers grow beside the
    result, so a stopped evaluation resumes.
    """
    if result.exists() or not items:
        return
    answers = _generate_answers(
        model,
        items,
        name=name,
        config=config,
        prompt_builder=prompt_builder,
        generator=generator,
        records=Records(result.with_name("heldout_answers.jsonl")),
    )
    requests = [_references(item, prompt_builder) for item in items]
    log_probabilities = _score_references(
        model(), requests, name=name, generator=generator
    )
    metrics, answer_metrics = compute_metrics(
        [
            _item_result(item, answer, references, values)
            for item, answer, references, values in zip(
                items, answers, requests, log_probabilities, strict=True
            )
        ]
    )
    write_json(
        result,
        {
            "model": name,
            "items": len(items),
            "metrics": metrics,
            "answers": answer_metrics,
        },
    )


def _generate_answers(
    model: Callable[[], Decoder],
    items: Sequence[HeldOut],
    *,
    name: str,
    config: EvaluationConfig,
    prompt_builder: PromptBuilder,
    generator: Generator,
    records: Records,
) -> list[str]:
    prompts = [
        prompt_builder.zero_shot(
            prompt_builder.template.answer_prompt(item.question),
            id=f"heldout-{index:04d}",
            sample_index=index,
        )
        for index, item in enumerate(items)
    ]
    generated = generate_to_records(
        records,
        prompts,
        model=model,
        generator=generator,
        sampling_params=config.sampling_params,
        round_index=0,
        kind=SampleKind.EVALUATION,
        stage=f"{name}: held-out answers",
        to_record=lambda completion: {
            "id": completion.id,
            "answer": completion.text,
            "finish": completion.finish_reason,
        },
    )
    return [str(record["answer"]) for record in generated]


def _references(item: HeldOut, prompt_builder: PromptBuilder) -> LoglikelihoodRequest:
    """Returns an item's prompt and its references, the true ones first."""
    prompt = prompt_builder.zero_shot(
        prompt_builder.template.answer_prompt(item.question)
    )
    return LoglikelihoodRequest(
        prompt=prompt.token_ids,
        continuations=tuple(
            prompt_builder.completion_ids(text) for text in (*item.true, *item.false)
        ),
    )


def _score_references(
    model: Decoder,
    requests: Sequence[LoglikelihoodRequest],
    *,
    name: str,
    generator: Generator,
) -> list[tuple[float, ...]]:
    """Returns log p(reference | prompt) of each item's references, in nats."""
    values: list[tuple[float, ...]] = []
    stage = f"{name}: held-out references"
    with progress(stage, total=len(requests), done=0, unit="items") as advance:
        for item_values in loglikelihood(
            model,
            requests,
            slots=min(generator.slots, SCORING_ROWS),
            mesh=generator.mesh,
            check=generator.check,
        ):
            values.append(item_values)
            advance(1)
    return values


def _item_result(
    item: HeldOut,
    answer: str,
    references: LoglikelihoodRequest,
    values: tuple[float, ...],
) -> ItemResult:
    true = len(item.true)
    return ItemResult(
        question=item.question,
        answer=answer,
        best_reference=item.true[0],
        true=item.true,
        false=item.false,
        nll_total=-sum(values[:true]),
        nll_tokens=sum(len(tokens) for tokens in references.continuations[:true]),
        true_log_probabilities=values[:true],
        false_log_probabilities=values[true:],
    )
