"""The charts of each section of the page; a section without data has none."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from isara_jax.report import round_statistics as statistics
from isara_jax.report.metric_specs import METRICS
from isara_jax.report.page import plots
from isara_jax.report.run_data import Evaluation, Round, RunData


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart as SVG, and its caption."""

    caption: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Charts:
    """The charts by section of the page."""

    learning: tuple[Chart, ...]
    metrics: tuple[Chart, ...]
    rounds: tuple[Chart, ...]
    similarity: tuple[Chart, ...]


def draw_charts(run: RunData) -> Charts:
    """Draws every chart that the run has the numbers for."""
    filtered = statistics.filtered(run.rounds)
    return Charts(
        learning=_learning(run),
        metrics=_metrics(run.evaluations),
        rounds=_rounds(filtered),
        similarity=_similarity(filtered),
    )


def _learning(run: RunData) -> tuple[Chart, ...]:
    curves = {
        "SFT on the seeds" if baseline.name == "sft" else baseline.name: baseline.steps
        for baseline in run.baselines
        if baseline.steps
    }
    curves |= {f"round {one.number}": one.steps for one in run.rounds if one.steps}
    if not curves:
        return ()
    return (_chart("Loss by optimiser step", plots.learning_curves(curves)),)


def _metrics(models: Sequence[Evaluation]) -> tuple[Chart, ...]:
    drawn = []
    for metric in METRICS:
        measured = [model for model in models if metric.name in model.metrics]
        if measured:
            svg = plots.metric_with_intervals(metric, measured)
            drawn.append(_chart(f"{metric.label}: {metric.meaning}", svg))
    return tuple(drawn)


def _rounds(rounds: Sequence[Round]) -> tuple[Chart, ...]:
    drawn = []
    if rounds:
        rates = {one.number: statistics.keep_rate(one) for one in rounds}
        svg = plots.by_round("keep rate", rates, limit=_alpha(rounds))
        drawn.append(_chart("Keep rate: kept / generated", svg))
    novelty = _known({one.number: statistics.novelty(one.kept) for one in rounds})
    if novelty:
        svg = plots.by_round("novelty", novelty, limit=None)
        drawn.append(_chart("Novelty: mean of 1 - similarity to nearest seed", svg))
    diversity = _known({one.number: statistics.diversity(one.kept) for one in rounds})
    if diversity:
        svg = plots.by_round("diversity", diversity, limit=None)
        drawn.append(_chart("Diversity: different word pairs of questions", svg))
    return tuple(drawn)


def _similarity(rounds: Sequence[Round]) -> tuple[Chart, ...]:
    similarities = {one.number: statistics.similarities(one.kept) for one in rounds}
    if not any(similarities.values()):
        return ()
    svg = plots.similarity_histogram(similarities)
    return (_chart("Kept pairs by similarity to their nearest seed", svg),)


def _alpha(rounds: Sequence[Round]) -> float | None:
    summaries = [one.summary for one in rounds if one.summary is not None]
    return summaries[-1].alpha if summaries else None


def _known(values: dict[int, float | None]) -> dict[int, float]:
    return {number: value for number, value in values.items() if value is not None}


def _chart(caption: str, svg: str) -> Chart:
    return Chart(
        caption=caption, svg=Markup(svg)
    )  # drawn by `plots`, which escapes every text
