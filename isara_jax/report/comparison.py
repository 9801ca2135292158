"""Compares the last round with the baselines, and sums it up in one sentence.

A difference counts as better or worse only if the two 95 % intervals do not overlap.
That is stricter than a test of paired differences, so the number of questions on which
one model does better than the other is given as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from isara_jax.report.metric_specs import METRICS, MetricSpec
from isara_jax.report.run_data import Evaluation, MetricValue, RunData


class Standing(StrEnum):
    """How a model compares with another on one metric."""

    BETTER = "better, intervals apart"
    AHEAD = "ahead, intervals overlap"
    EQUAL = "equal"
    BEHIND = "behind, intervals overlap"
    WORSE = "worse, intervals apart"


@dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """One metric of the last round and of one baseline.

    `questions_better` and `questions_worse` count the questions that both models
    answered; they are 0 for a metric of all answers together.
    """

    metric: MetricSpec
    standing: Standing
    questions: int
    questions_better: int
    questions_worse: int


@dataclass(frozen=True, kw_only=True)
class BaselineComparison:
    """The last round and one baseline, metric by metric."""

    model: str
    comparisons: tuple[MetricComparison, ...]

    def metrics(self, standing: Standing) -> list[MetricSpec]:
        """Returns the metrics on which the last round has this standing."""
        return [one.metric for one in self.comparisons if one.standing is standing]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A sentence, and the comparisons that it sums up."""

    sentence: str
    model: str
    baselines: tuple[BaselineComparison, ...]


def compare_with_baselines(run: RunData) -> Verdict:
    """Compares the last evaluated round with every baseline that was evaluated."""
    last = _last_round(run)
    if last is None:
        return Verdict(
            sentence="No round has been evaluated yet, so there is nothing to judge.",
            model="",
            baselines=(),
        )
    evaluations = [b.evaluation for b in run.baselines if b.evaluation is not None]
    baselines = tuple(_compare(last, baseline) for baseline in evaluations)
    return Verdict(
        sentence=_sentence(last.model, baselines), model=last.model, baselines=baselines
    )


def _last_round(run: RunData) -> Evaluation | None:
    evaluated = [r.evaluation for r in run.rounds if r.evaluation is not None]
    return evaluated[-1] if evaluated else None


def _compare(model: Evaluation, baseline: Evaluation) -> BaselineComparison:
    shared = [
        metric
        for metric in METRICS
        if metric.better != "neither"
        and metric.name in model.metrics
        and metric.name in baseline.metrics
    ]
    comparisons = tuple(_compare_metric(metric, model, baseline) for metric in shared)
    return BaselineComparison(model=baseline.model, comparisons=comparisons)


def _compare_metric(
    metric: MetricSpec, model: Evaluation, baseline: Evaluation
) -> MetricComparison:
    gains = _gains(metric, model, baseline)
    return MetricComparison(
        metric=metric,
        standing=standing(
            metric, model.metrics[metric.name], baseline.metrics[metric.name]
        ),
        questions=len(gains),
        questions_better=sum(gain > 0 for gain in gains),
        questions_worse=sum(gain < 0 for gain in gains),
    )


def standing(metric: MetricSpec, model: MetricValue, baseline: MetricValue) -> Standing:
    """Returns how the model compares; overlapping intervals are no win or loss."""
    sign = 1 if metric.better == "higher" else -1
    difference = sign * (model.value - baseline.value)
    apart = model.low > baseline.high or model.high < baseline.low
    if difference > 0:
        return Standing.BETTER if apart else Standing.AHEAD
    if difference < 0:
        return Standing.WORSE if apart else Standing.BEHIND
    return Standing.EQUAL


def _gains(metric: MetricSpec, model: Evaluation, baseline: Evaluation) -> list[float]:
    """Returns the gain on each question that both answered.

    A metric of all answers together has no gains.
    """
    sign = 1 if metric.better == "higher" else -1
    before = {answer.question: answer for answer in baseline.answers}
    return [
        sign
        * (getattr(answer, metric.name) - getattr(before[answer.question], metric.name))
        for answer in model.answers
        if answer.question in before and hasattr(answer, metric.name)
    ]


def _sentence(model: str, baselines: Sequence[BaselineComparison]) -> str:
    if not baselines:
        return f"{model} has been evaluated, but no baseline to compare it with."
    whole = f"{model} {'; it '.join(_clause(one) for one in baselines)}."
    counts = [count for one in baselines if (count := _nll_count(one))]
    if not counts:
        return whole
    return f"{whole} Its NLL is lower than {_joined(counts)}."


def _clause(one: BaselineComparison) -> str:
    better, worse = one.metrics(Standing.BETTER), one.metrics(Standing.WORSE)
    name, total = _named(one.model), len(one.comparisons)
    if not better and not worse:
        return (
            f"cannot be told apart from {name}: the 95 % intervals overlap on all "
            f"{total} metrics"
        )
    parts = []
    if better:
        count = f"{len(better)} of {total} metrics"
        parts.append(f"beats {name} on {count} ({_list(better)})")
    if worse:
        count = f"{len(worse)}" if better else f"{len(worse)} of {total} metrics"
        loses = "loses" if better else f"loses to {name}"
        parts.append(f"{loses} on {count} ({_list(worse)})")
    rest = total - len(better) - len(worse)
    overlap = f", with overlapping 95 % intervals on the other {rest}" if rest else ""
    return _joined(parts) + overlap


def _nll_count(one: BaselineComparison) -> str:
    for comparison in one.comparisons:
        if comparison.metric.name == "nll" and comparison.questions:
            count = f"{comparison.questions_better} of {comparison.questions} questions"
            return f"that of {_named(one.model)} on {count}"
    return ""


def _named(model: str) -> str:
    return "the pretrained model" if model == "pretrained" else model


def _list(metrics: Sequence[MetricSpec]) -> str:
    return ", ".join(metric.label for metric in metrics)


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
