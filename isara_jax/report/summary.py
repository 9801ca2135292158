"""The text table at the end of a run: models as rows, metrics as columns."""

from collections.abc import Sequence

from isara_jax.report.comparison import compare_with_baselines
from isara_jax.report.metric_specs import METRICS, MetricSpec
from isara_jax.report.run_data import Evaluation, Round, read_run
from isara_jax.run import Workdir

_DIRECTION = {"lower": "(lower)", "higher": "(higher)", "neither": ""}


def summary_table(workdir: Workdir) -> str:
    """Returns the table, what every round kept, and the verdict, as lines of text.

    Raises:
      InputError: it is no run's folder, or a file of it is damaged.
    """
    run = read_run(workdir)
    lines = _aligned([*_heads(), *(_row(model) for model in run.evaluations)])
    if not run.evaluations:
        lines = ["no model has been evaluated yet"]
    kept = [_kept(round_) for round_ in run.rounds]
    return "\n".join([*lines, "", *kept, "", compare_with_baselines(run).sentence])


def _heads() -> list[list[str]]:
    return [
        ["model", *(metric.name for metric in METRICS)],
        ["", *(_DIRECTION[metric.better] for metric in METRICS)],
    ]


def _row(model: Evaluation) -> list[str]:
    return [model.model, *(_cell(model, metric) for metric in METRICS)]


def _cell(model: Evaluation, metric: MetricSpec) -> str:
    found = model.metrics.get(metric.name)
    return "-" if found is None else f"{found.value:.{metric.digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns the first column left and the others right."""
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
    if one.summary is None or not one.summary.stop:
        return line
    return f"{line}, stopped: {one.summary.reason}"
