import re

from isara_jax.report.page.charts import draw_charts
from isara_jax.report.run_data.read import read_run


def test_a_finished_run_has_every_figure(finished):
    drawn = draw_charts(read_run(finished.workdir))
    assert len(drawn.metrics) == 8
    assert len(drawn.rounds) == 3
    assert len(drawn.learning) == len(drawn.similarity) == 1
    curves = str(drawn.learning[0].svg)
    names = re.findall(r">(SFT on the seeds|round \d)</text>", curves)
    assert names == ["SFT on the seeds", "round 1", "round 2"]


def test_the_keep_rate_shows_where_the_run_would_stop(finished):
    drawn = draw_charts(read_run(finished.workdir))
    assert ">stop below 0.1</text>" in drawn.rounds[0].svg


def test_a_run_that_has_only_begun_has_no_figure(begun):
    drawn = draw_charts(read_run(begun.workdir))
    assert drawn.learning == drawn.metrics == drawn.rounds == drawn.similarity == ()


def test_a_round_that_kept_nothing_has_a_keep_rate_alone(begun):
    begun.lines(
        "round_01/rejected.jsonl",
        [{"id": "r01-0000", "question": "q", "answer": "a", "rule": "short"}],
    )
    drawn = draw_charts(read_run(begun.workdir))
    assert len(drawn.rounds) == 1 and drawn.similarity == ()
