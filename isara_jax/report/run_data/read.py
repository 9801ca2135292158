"""Reads a run's folder into values, as far as the run has got.

A file that is not there yet is an empty tuple or None; a file that is there and breaks
the format of WORKSPACE.md is an error.
"""

import re
from pathlib import Path

from isara_jax.errors import FieldError
from isara_jax.report.run_data.parse import (
    build,
    build_all,
    build_named,
    read_all,
    read_lines,
    read_object,
)
from isara_jax.report.run_data.values import (
    Answer,
    Baseline,
    Evaluation,
    Metric,
    Outcome,
    Round,
    Run,
    Sample,
    Stage,
    Step,
    Text,
)
from isara_jax.run import RoundFolder, Workdir

BASELINE_ORDER = ("pretrained", "sft")


def gather(workdir: Workdir) -> Run:
    """Reads the run's folder.

    Raises:
      InputError: it is no run's folder, or a file of it is damaged.
    """
    if not workdir.manifest.is_file():
        raise FieldError(
            "workdir", workdir.path, "no run's folder, manifest.json is missing"
        )
    return Run(
        name=workdir.path.resolve().name,
        manifest=read_object(workdir.manifest),
        seeds=read_all(Text, workdir.path / "seeds.jsonl"),
        baselines=tuple(
            _baseline(name, workdir.baseline(name)) for name in _baseline_names(workdir)
        ),
        rounds=tuple(
            _round(number, workdir.round(number)) for number in _round_numbers(workdir)
        ),
        stages=_stages(workdir.stages.path),
    )


def _baseline_names(workdir: Workdir) -> list[str]:
    found = {path.parent.name for path in workdir.path.glob("baselines/*/*.json*")}
    first = [name for name in BASELINE_ORDER if name in found]
    return first + sorted(found.difference(first))


def _round_numbers(workdir: Workdir) -> list[int]:
    names = [path.name for path in workdir.path.glob("round_*") if path.is_dir()]
    matches = [re.fullmatch(r"round_(\d+)", name) for name in names]
    return sorted(int(match[1]) for match in matches if match)


def _baseline(name: str, folder: RoundFolder) -> Baseline:
    return Baseline(
        name=name,
        steps=read_all(Step, folder.metrics.path),
        evaluation=_evaluation(folder.evaluation),
    )


def _round(number: int, folder: RoundFolder) -> Round:
    return Round(
        number=number,
        questions=len(read_lines(folder.questions.path)),
        answers=len(read_lines(folder.answers.path)),
        kept=read_all(Sample, folder.kept, round_index=number),
        rejected=read_all(Sample, folder.rejected, round_index=number),
        steps=read_all(Step, folder.metrics.path),
        evaluation=_evaluation(folder.evaluation),
        outcome=_outcome(folder.summary),
    )


def _outcome(path: Path) -> Outcome | None:
    return build(Outcome, read_object(path), path) if path.exists() else None


def _evaluation(path: Path) -> Evaluation | None:
    if not path.exists():
        return None
    record = read_object(path)
    return build(
        Evaluation,
        record,
        path,
        metrics=build_named(Metric, record.get("metrics", {}), path),
        answers=build_all(Answer, record.get("answers", []), path),
    )


def _stages(path: Path) -> tuple[Stage, ...]:
    total: dict[str, Stage] = {}
    for record in read_lines(path):
        part = build(Stage, record, path, name=str(record.get("stage", "")))
        before = total.get(part.name)
        total[part.name] = part if before is None else _sum(before, part)
    return tuple(total.values())


def _sum(first: Stage, second: Stage) -> Stage:
    return Stage(
        name=first.name,
        seconds=first.seconds + second.seconds,
        items=first.items + second.items,
        tokens=first.tokens + second.tokens,
    )
