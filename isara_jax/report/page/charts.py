"""Chooses the figures of the page; a section without data has none."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from isara_jax.report import round_statistics as progress
from isara_jax.report.metrics import MEASURES
from isara_jax.report.page import plots as figures
from isara_jax.report.run_data import Evaluation, Round, Run


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure and what stands above it."""

    caption: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Charts:
    """The figures by section of the page."""

    learning: tuple[Chart, ...]
    measures: tuple[Chart, ...]
    rounds: tuple[Chart, ...]
    similarity: tuple[Chart, ...]


def charts(run: Run) -> Charts:
    """Draws every figure that the run has the numbers for."""
    filtered = progress.filtered(run.rounds)
    return Charts(
        learning=_learning(run),
        measures=_measures(run.evaluations),
        rounds=_rounds(filtered),
        similarity=_similarity(filtered),
    )


def _learning(run: Run) -> tuple[Chart, ...]:
    curves = {
        "SFT on the seeds" if baseline.name == "sft" else baseline.name: baseline.steps
        for baseline in run.baselines
        if baseline.steps
    }
    curves |= {f"round {one.number}": one.steps for one in run.rounds if one.steps}
    if not curves:
        return ()
    return (_chart("Loss by optimiser step", figures.learning_curves(curves)),)


def _measures(models: Sequence[Evaluation]) -> tuple[Chart, ...]:
    drawn = []
    for measure in MEASURES:
        measured = [model for model in models if measure.name in model.metrics]
        if measured:
            svg = figures.metric_with_intervals(measure, measured)
            drawn.append(_chart(f"{measure.label}: {measure.meaning}", svg))
    return tuple(drawn)


def _rounds(rounds: Sequence[Round]) -> tuple[Chart, ...]:
    drawn = []
    if rounds:
        rates = {one.number: progress.keep_rate(one) for one in rounds}
        svg = figures.by_round("keep rate", rates, limit=_alpha(rounds))
        drawn.append(_chart("Keep rate: kept / generated", svg))
    novelty = _known({one.number: progress.novelty(one.kept) for one in rounds})
    if novelty:
        svg = figures.by_round("novelty", novelty, limit=None)
        drawn.append(_chart("Novelty: mean of 1 - similarity to nearest seed", svg))
    diversity = _known({one.number: progress.diversity(one.kept) for one in rounds})
    if diversity:
        svg = figures.by_round("diversity", diversity, limit=None)
        drawn.append(_chart("Diversity: different word pairs of questions", svg))
    return tuple(drawn)


def _similarity(rounds: Sequence[Round]) -> tuple[Chart, ...]:
    similarities = {one.number: progress.similarities(one.kept) for one in rounds}
    if not any(similarities.values()):
        return ()
    svg = figures.similarity_histogram(similarities)
    return (_chart("Kept pairs by similarity to their nearest seed", svg),)


def _alpha(rounds: Sequence[Round]) -> float | None:
    outcomes = [one.outcome for one in rounds if one.outcome is not None]
    return outcomes[-1].alpha if outcomes else None


def _known(values: dict[int, float | None]) -> dict[int, float]:
    return {number: value for number, value in values.items() if value is not None}


def _chart(caption: str, svg: str) -> Chart:
    return Chart(caption=caption, svg=Markup(svg))  # drawn by us
