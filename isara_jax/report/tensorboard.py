"""TensorBoard event files beside the run's own records."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from isara_jax.report.run_data import Evaluation, RunData, TrainingStep, read_run
from isara_jax.run import Workdir

STEP_SCALARS = (
    *("loss", "learning_rate", "gradient_norm", "tokens"),
    *("update_ratio", "validation_loss"),
)

Point = tuple[str, float, int]
"""A scalar's tag, value and step."""


def write_tensorboard(workdir: Workdir) -> Path:
    """Rewrites runs/NAME/tensorboard from the records and returns it.

    `train/*` has a curve for each finetuning, by optimiser step: `sft`, `round_01`, ...
    `evaluation/*` has the curve `isara` by round, whose round 0 is the pretrained
    model, and a point at 0 for each other baseline.

    Raises:
      InputError: it is no run's folder, or a file of it is damaged.
    """
    run = read_run(workdir)
    folder = workdir.path / "tensorboard"
    if folder.exists():
        shutil.rmtree(folder)
    for baseline in run.baselines:
        _write_steps(folder / baseline.name, baseline.steps)
        if baseline.evaluation is not None and baseline.name != "pretrained":
            _write_evaluations(folder / baseline.name, [(0, baseline.evaluation)])
    for round_ in run.rounds:
        _write_steps(folder / f"round_{round_.number:02d}", round_.steps)
    _write_evaluations(folder / "isara", _by_round(run))
    return folder


def _by_round(run: RunData) -> list[tuple[int, Evaluation]]:
    models = [(0, b.evaluation) for b in run.baselines if b.name == "pretrained"]
    models += [(round_.number, round_.evaluation) for round_ in run.rounds]
    return [(number, model) for number, model in models if model is not None]


def _write_steps(folder: Path, steps: Sequence[TrainingStep]) -> None:
    points = [
        (f"train/{name}", value, step.step)
        for step in steps
        for name in STEP_SCALARS
        if (value := getattr(step, name)) is not None
    ]
    _write(folder, points, suffix=".train")


def _write_evaluations(folder: Path, models: Sequence[tuple[int, Evaluation]]) -> None:
    points = [
        (f"evaluation/{name}", metric.value, number)
        for number, model in models
        for name, metric in model.metrics.items()
    ]
    _write(folder, points, suffix=".evaluation")


def _write(folder: Path, points: Sequence[Point], *, suffix: str) -> None:
    # Late, since tensorboardX imports torch wherever it finds it: two seconds.
    from tensorboardX import SummaryWriter

    if not points:
        return
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for tag, value, step in points:
            writer.add_scalar(tag, value, step)
