"""Says in one plain sentence how far the last round got, from the numbers alone.

A difference counts as won or lost only where the two 95 % intervals lie apart. That is
stricter than a test of paired differences, so beside it stands the plain count of the
questions on which one model did better than the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from isara_jax.report.metrics import MEASURES, Measure
from isara_jax.report.run_data import Evaluation, Metric, Run


class Standing(StrEnum):
    """How a model stands against another on one measure."""

    BETTER = "better, intervals apart"
    AHEAD = "ahead, intervals overlap"
    EQUAL = "equal"
    BEHIND = "behind, intervals overlap"
    WORSE = "worse, intervals apart"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measure of the last round against one baseline."""

    measure: Measure
    standing: Standing
    questions: int
    questions_better: int
    questions_worse: int


@dataclass(frozen=True, kw_only=True)
class Against:
    """The last round against one baseline, measure by measure."""

    model: str
    comparisons: tuple[Comparison, ...]

    def measures(self, standing: Standing) -> list[Measure]:
        return [c.measure for c in self.comparisons if c.standing is standing]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The sentence, and the comparisons that it counts."""

    sentence: str
    model: str
    against: tuple[Against, ...]


def judge(run: Run) -> Verdict:
    """Compares the last evaluated round with every baseline that was evaluated."""
    last = _last_round(run)
    if last is None:
        return Verdict(
            sentence="No round has been evaluated yet, so there is nothing to judge.",
            model="",
            against=(),
        )
    baselines = [b.evaluation for b in run.baselines if b.evaluation is not None]
    against = tuple(_against(last, baseline) for baseline in baselines)
    return Verdict(
        sentence=_sentence(last.model, against), model=last.model, against=against
    )


def _last_round(run: Run) -> Evaluation | None:
    evaluated = [r.evaluation for r in run.rounds if r.evaluation is not None]
    return evaluated[-1] if evaluated else None


def _against(model: Evaluation, baseline: Evaluation) -> Against:
    shared = [
        measure
        for measure in MEASURES
        if measure.better != "neither"
        and measure.name in model.metrics
        and measure.name in baseline.metrics
    ]
    comparisons = tuple(_comparison(m, model, baseline) for m in shared)
    return Against(model=baseline.model, comparisons=comparisons)


def _comparison(
    measure: Measure, model: Evaluation, baseline: Evaluation
) -> Comparison:
    gains = _gains(measure, model, baseline)
    return Comparison(
        measure=measure,
        standing=standing(
            measure, model.metrics[measure.name], baseline.metrics[measure.name]
        ),
        questions=len(gains),
        questions_better=sum(gain > 0 for gain in gains),
        questions_worse=sum(gain < 0 for gain in gains),
    )


def standing(measure: Measure, model: Metric, baseline: Metric) -> Standing:
    """Returns how the model stands; the intervals decide whether it counts."""
    sign = 1 if measure.better == "higher" else -1
    difference = sign * (model.value - baseline.value)
    apart = model.low > baseline.high or model.high < baseline.low
    if difference > 0:
        return Standing.BETTER if apart else Standing.AHEAD
    if difference < 0:
        return Standing.WORSE if apart else Standing.BEHIND
    return Standing.EQUAL


def _gains(measure: Measure, model: Evaluation, baseline: Evaluation) -> list[float]:
    """Returns the gain on each shared question; none for measures of all answers."""
    sign = 1 if measure.better == "higher" else -1
    before = {answer.question: answer for answer in baseline.answers}
    return [
        sign
        * (
            getattr(answer, measure.name)
            - getattr(before[answer.question], measure.name)
        )
        for answer in model.answers
        if answer.question in before and hasattr(answer, measure.name)
    ]


def _sentence(model: str, against: Sequence[Against]) -> str:
    if not against:
        return f"{model} has been evaluated, but no baseline to compare it with."
    whole = f"{model} {'; it '.join(_clause(one) for one in against)}."
    counts = [count for one in against if (count := _nll_count(one))]
    if not counts:
        return whole
    return f"{whole} Its NLL is lower than {_joined(counts)}."


def _clause(one: Against) -> str:
    better, worse = one.measures(Standing.BETTER), one.measures(Standing.WORSE)
    name, total = _named(one.model), len(one.comparisons)
    if not better and not worse:
        return (
            f"cannot be told apart from {name}: the 95 % intervals overlap on all "
            f"{total} measures"
        )
    parts = []
    if better:
        count = f"{len(better)} of {total} measures"
        parts.append(f"beats {name} on {count} ({_list(better)})")
    if worse:
        count = f"{len(worse)}" if better else f"{len(worse)} of {total} measures"
        loses = "loses" if better else f"loses to {name}"
        parts.append(f"{loses} on {count} ({_list(worse)})")
    rest = total - len(better) - len(worse)
    overlap = f", with overlapping 95 % intervals on the other {rest}" if rest else ""
    return _joined(parts) + overlap


def _nll_count(one: Against) -> str:
    for comparison in one.comparisons:
        if comparison.measure.name == "nll" and comparison.questions:
            count = f"{comparison.questions_better} of {comparison.questions} questions"
            return f"that of {_named(one.model)} on {count}"
    return ""


def _named(model: str) -> str:
    return "the pretrained model" if model == "pretrained" else model


def _list(measures: Sequence[Measure]) -> str:
    return ", ".join(measure.label for measure in measures)


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
