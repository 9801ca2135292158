"""The values that the report shows of a run; `read_run` reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A seed pair."""

    id: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A generated pair after the filter.

    `rule` names the filter's rule that rejected it, and is empty if it was kept.
    `nearest_seed_similarity` is a cosine, `parent` the model that generated the pair.
    """

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
class TrainingStep:
    """One optimiser step of a finetuning, with its loss in nats a token.

    The loss of a finetuning that diverged may not be finite.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    update_ratio: float | None = None
    validation_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's answer to one held-out question, and its metrics on that question."""

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
    metrics: Mapping[str, MetricValue]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """round.json: the numbers of the stopping rule."""

    generated: int
    kept: int
    keep_rate: float
    alpha: float
    stop: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Round:
    """Round t, finished or not; `summary` is None until the stopping rule has run."""

    number: int
    questions: int
    answers: int
    kept: tuple[Sample, ...]
    rejected: tuple[Sample, ...]
    steps: tuple[TrainingStep, ...]
    evaluation: Evaluation | None
    summary: RoundSummary | None

    @property
    def filtered(self) -> int:
        """The number of pairs that the filter has kept or rejected."""
        return len(self.kept) + len(self.rejected)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A model that the rounds are compared with."""

    name: str
    steps: tuple[TrainingStep, ...]
    evaluation: Evaluation | None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the run, summed over its resumptions."""

    name: str
    seconds: float
    items: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything that the report shows of a run."""

    name: str
    manifest: Mapping[str, Any]
    seeds: tuple[Seed, ...]
    baselines: tuple[Baseline, ...]
    rounds: tuple[Round, ...]
    stages: tuple[Stage, ...]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The models of the report in its order: the baselines, then the rounds."""
        baselines = [baseline.evaluation for baseline in self.baselines]
        rounds = [round_.evaluation for round_ in self.rounds]
        return tuple(e for e in baselines + rounds if e is not None)
