"""The plain table at the end of a run: models as rows, measures as columns."""

from collections.abc import Sequence

from isara_jax.report.comparison import judge
from isara_jax.report.metrics import MEASURES, Measure
from isara_jax.report.run_data import Evaluation, Round, gather
from isara_jax.run import Workdir

_DIRECTION = {"lower": "(lower)", "higher": "(higher)", "neither": ""}


def summary_table(workdir: Workdir) -> str:
    """Returns the table, what every round kept, and the verdict, as lines of text.

    Raises:
      InputError: it is no run's folder, or a file of it is damaged.
    """
    run = gather(workdir)
    lines = _aligned([*_heads(), *(_row(model) for model in run.evaluations)])
    if not run.evaluations:
        lines = ["no model has been evaluated yet"]
    kept = [_kept(round_) for round_ in run.rounds]
    return "\n".join([*lines, "", *kept, "", judge(run).sentence])


def _heads() -> list[list[str]]:
    return [
        ["model", *(measure.name for measure in MEASURES)],
        ["", *(_DIRECTION[measure.better] for measure in MEASURES)],
    ]


def _row(model: Evaluation) -> list[str]:
    return [model.model, *(_cell(model, measure) for measure in MEASURES)]


def _cell(model: Evaluation, measure: Measure) -> str:
    metric = model.metrics.get(measure.name)
    return "-" if metric is None else f"{metric.value:.{measure.digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows with the first column on the left, the others on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [
                cell.rjust(width)
                for cell, width in zip(row[1:], widths[1:], strict=True)
            ]
        ).rstrip()
        for row in rows
    ]


def _kept(one: Round) -> str:
    if not one.filtered:
        return (
            f"round {one.number}: {one.questions} questions and {one.answers} answers "
            "so far, not filtered yet"
        )
    rate = len(one.kept) / one.filtered
    line = f"round {one.number}: kept {len(one.kept)} of {one.filtered} ({rate:.0%})"
    if one.outcome is None or not one.outcome.stop:
        return line
    return f"{line}, stopped: {one.outcome.reason}"
