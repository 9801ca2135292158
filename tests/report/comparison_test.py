import dataclasses

import pytest

from isara_jax.report.comparison import Standing, compare_with_baselines, standing
from isara_jax.report.metric_specs import METRICS
from isara_jax.report.run_data.read import read_run
from isara_jax.report.run_data.values import MetricValue

LOWER = METRICS[0]
HIGHER = METRICS[1]


def metric(value, half):
    return MetricValue(value=value, low=value - half, high=value + half)


@pytest.mark.parametrize(
    ("spec", "model", "baseline", "expected"),
    [
        (LOWER, metric(1, 0.4), metric(2, 0.4), Standing.BETTER),
        (LOWER, metric(1, 0.6), metric(2, 0.6), Standing.AHEAD),
        (LOWER, metric(2, 0.4), metric(1, 0.4), Standing.WORSE),
        (LOWER, metric(2, 0.6), metric(1, 0.6), Standing.BEHIND),
        (HIGHER, metric(2, 0.4), metric(1, 0.4), Standing.BETTER),
        (HIGHER, metric(1, 0.4), metric(2, 0.4), Standing.WORSE),
        (HIGHER, metric(1, 0.0), metric(1, 0.0), Standing.EQUAL),
        # Intervals that touch do not lie apart.
        (HIGHER, metric(2, 0.5), metric(1, 0.5), Standing.AHEAD),
    ],
)
def test_standing(spec, model, baseline, expected):
    assert standing(spec, model, baseline) is expected


def judged(finished, **nll):
    run = read_run(finished.workdir)

    def changed(model):
        if model.model not in nll:
            return model
        better = {**model.metrics, "nll": metric(nll[model.model], 0.1)}
        return dataclasses.replace(model, metrics=better)

    return compare_with_baselines(
        dataclasses.replace(
            run,
            baselines=tuple(
                dataclasses.replace(b, evaluation=changed(b.evaluation))
                for b in run.baselines
            ),
        )
    )


def test_a_win_is_claimed_only_where_the_intervals_lie_apart(finished):
    # pretrained 3.0, SFT 2.4, round 2 is at 2.3, all +- 0.1.
    assert compare_with_baselines(read_run(finished.workdir)).sentence == (
        "ISARA round 2 beats the pretrained model on 1 of 7 metrics (NLL), with "
        "overlapping 95 % intervals on the other 6; it cannot be told apart from SFT "
        "on the seeds: the 95 % intervals overlap on all 7 metrics. Its NLL is lower "
        "than that of the pretrained model on 2 of 2 questions and that of SFT on the "
        "seeds on 2 of 2 questions."
    )


def test_a_loss_is_said_as_plainly(finished):
    verdict = judged(finished, pretrained=1.0)
    assert verdict.sentence.startswith(
        "ISARA round 2 loses to the pretrained model on 1 of 7 metrics (NLL), with"
    )


def test_questions_are_counted_for_measures_of_a_question(finished):
    comparison = compare_with_baselines(read_run(finished.workdir)).baselines[0]
    counts = {
        c.metric.name: (c.questions, c.questions_better, c.questions_worse)
        for c in comparison.comparisons
    }
    assert counts["nll"] == (2, 2, 0)
    assert counts["mc1"] == (2, 0, 0)
    assert counts["collapse"] == (0, 0, 0)
    assert "mean_words" not in counts


def test_the_last_round_is_the_last_evaluated_one(finished):
    finished.workdir.round(2).evaluation.unlink()
    assert compare_with_baselines(read_run(finished.workdir)).model == "ISARA round 1"


def test_a_run_without_an_evaluation_is_not_judged(begun):
    verdict = compare_with_baselines(read_run(begun.workdir))
    assert verdict.sentence.startswith("No round has been evaluated yet")


def test_a_run_without_baselines_is_not_compared(finished):
    for name in ("pretrained", "sft"):
        finished.workdir.baseline(name).evaluation.unlink()
    verdict = compare_with_baselines(read_run(finished.workdir))
    assert "no baseline to compare it with" in verdict.sentence
