"""What the report shows of a run, as values; `gather` reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Text:
    """A pair that can stand in a prompt as a demonstration."""

    id: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A generated pair after the filter; `rule` is empty where it was kept."""

    id: str
    round_index: int
    question: str
    answer: str
    question_demos: tuple[str, ...] = ()
    answer_demos: tuple[str, ...] = ()
    nearest_seed: str = ""
    nearest_seed_similarity: float | None = None
    parent: str = ""
    rule: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step of a fine-tuning; a diverged one may hold no finite loss."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    update_ratio: float | None = None
    validation_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one model answered to one held-out question, and its scores there."""

    question: str
    answer: str
    best_reference: str
    nll: float
    rouge_l_difference: float
    mc1: float
    mc2: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """evaluation.json of one model."""

    model: str
    items: int
    metrics: Mapping[str, Metric]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """round.json: the numbers of the stopping rule."""

    generated: int
    kept: int
    keep_rate: float
    alpha: float
    stop: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Round:
    """Round t as far as it has got; `outcome` is None until the filter has run."""

    number: int
    questions: int
    answers: int
    kept: tuple[Sample, ...]
    rejected: tuple[Sample, ...]
    steps: tuple[Step, ...]
    evaluation: Evaluation | None
    outcome: Outcome | None

    @property
    def filtered(self) -> int:
        return len(self.kept) + len(self.rejected)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A model that the rounds are compared with."""

    name: str
    steps: tuple[Step, ...]
    evaluation: Evaluation | None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the run, summed over the times it was resumed."""

    name: str
    seconds: float
    items: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that the report shows."""

    name: str
    manifest: Mapping[str, Any]
    seeds: tuple[Text, ...]
    baselines: tuple[Baseline, ...]
    rounds: tuple[Round, ...]
    stages: tuple[Stage, ...]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The models of the report in its order: the baselines, then the rounds."""
        baselines = [baseline.evaluation for baseline in self.baselines]
        rounds = [round_.evaluation for round_ in self.rounds]
        return tuple(e for e in baselines + rounds if e is not None)
