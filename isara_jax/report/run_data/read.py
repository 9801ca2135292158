"""Reads the folder of a run, finished or not.

A file that does not exist yet gives an empty tuple or None. A file that breaks the
format is an error.
"""

import re
from pathlib import Path

from isara_jax.errors import FieldError
from isara_jax.report.run_data.parse import (
    parse_list,
    parse_object,
    parse_record,
    read_json_object,
    read_jsonl,
    read_records,
)
from isara_jax.report.run_data.values import (
    Answer,
    Baseline,
    Evaluation,
    MetricValue,
    Round,
    RoundSummary,
    RunData,
    Sample,
    Seed,
    Stage,
    TrainingStep,
)
from isara_jax.run import RoundFolder, Workdir

BASELINE_ORDER = ("pretrained", "sft")


def read_run(workdir: Workdir) -> RunData:
    """Reads the folder of a run.

    Raises:
      InputError: it is no run's folder, or a file of it is damaged.
    """
    if not workdir.manifest.is_file():
        raise FieldError(
            "workdir", workdir.path, "no run's folder, manifest.json is missing"
        )
    return RunData(
        name=workdir.path.resolve().name,
        manifest=read_json_object(workdir.manifest),
        seeds=read_records(Seed, workdir.path / "seeds.jsonl"),
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
        steps=read_records(TrainingStep, folder.metrics.path),
        evaluation=_evaluation(folder.evaluation),
    )


def _round(number: int, folder: RoundFolder) -> Round:
    return Round(
        number=number,
        questions=len(read_jsonl(folder.questions.path)),
        answers=len(read_jsonl(folder.answers.path)),
        kept=read_records(Sample, folder.kept, round_index=number),
        rejected=read_records(Sample, folder.rejected, round_index=number),
        steps=read_records(TrainingStep, folder.metrics.path),
        evaluation=_evaluation(folder.evaluation),
        summary=_summary(folder.summary),
    )


def _summary(path: Path) -> RoundSummary | None:
    return (
        parse_record(RoundSummary, read_json_object(path), path)
        if path.exists()
        else None
    )


def _evaluation(path: Path) -> Evaluation | None:
    if not path.exists():
        return None
    record = read_json_object(path)
    return parse_record(
        Evaluation,
        record,
        path,
        metrics=parse_object(MetricValue, record.get("metrics", {}), path),
        answers=parse_list(Answer, record.get("answers", []), path),
    )


def _stages(path: Path) -> tuple[Stage, ...]:
    totals: dict[str, Stage] = {}
    for record in read_jsonl(path):
        part = parse_record(Stage, record, path, name=str(record.get("stage", "")))
        before = totals.get(part.name)
        totals[part.name] = part if before is None else _sum(before, part)
    return tuple(totals.values())


def _sum(first: Stage, second: Stage) -> Stage:
    return Stage(
        name=first.name,
        seconds=first.seconds + second.seconds,
        items=first.items + second.items,
        tokens=first.tokens + second.tokens,
    )
