import re
from xml.etree import ElementTree

import pytest

from isara_jax.report.metric_specs import METRICS
from isara_jax.report.page import plots
from isara_jax.report.run_data.values import Evaluation, MetricValue, TrainingStep


def steps(*losses):
    return [
        TrainingStep(step=n, loss=loss, learning_rate=1e-5, gradient_norm=1.0, tokens=9)
        for n, loss in enumerate(losses)
    ]


def model(name, value):
    metric = MetricValue(value=value, low=value - 1, high=value + 1)
    return Evaluation(model=name, items=2, metrics={"nll": metric}, answers=())


def draw_all():
    models = [model("pretrained", 3.0), model("SFT <on> seeds", 2.0), model("ICL", 2.5)]
    return [
        plots.learning_curves({"SFT on the seeds": steps(3, 2), "round 1": steps(1)}),
        plots.metric_with_intervals(METRICS[0], models),
        plots.similarity_histogram({1: [0.2, 0.9, -0.1], 2: []}),
        plots.by_round("keep rate", {1: 0.5, 2: 0.25}, limit=0.1),
    ]


def test_every_figure_is_well_formed_and_labelled():
    for svg in draw_all():
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert root.get("role") == "img" and root.get("aria-label")


def test_equal_numbers_give_equal_bytes():
    assert draw_all() == draw_all()


def test_nothing_names_a_date_or_another_place_to_load_from():
    text = "".join(draw_all())
    assert "<dc:date>" not in text
    assert not re.search(r'(href|src)="(?!#)', text)
    assert not re.search(r"url\((?!#)", text)


def test_colours_come_from_the_page():
    text = "".join(draw_all())
    assert "var(--pretrained)" in text and "var(--sft)" in text
    assert "var(--round-1)" in text and "var(--other)" in text
    assert "#0a0b" not in text


def test_ids_are_unique_over_all_figures_and_references_hold():
    svgs = draw_all()
    ids = [found for svg in svgs for found in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'(?:url\(#|href="#)([^")]+)', "".join(svgs))
    assert wanted and set(wanted) <= set(ids)


def test_a_point_and_its_interval_are_drawn_where_they_belong():
    svg = plots.metric_with_intervals(METRICS[0], [model("pretrained", 3.0)])
    label = ElementTree.fromstring(svg).get("aria-label")
    assert label == "NLL: pretrained 3.000 (2.000 to 4.000)"
    assert ">pretrained</text>" in svg


def test_text_is_escaped_and_no_formula():
    svg = plots.learning_curves({"<b> $\\frac{1}{2}$ &": steps(1, 2)})
    assert ">&lt;b&gt; $\\frac{1}{2}$ &amp;</text>" in svg


def test_a_long_name_leaves_room_for_the_drawing():
    svg = plots.metric_with_intervals(METRICS[0], [model("m" * 90, 1.0)])
    assert f">{'m' * 21}...</text>" in svg


def test_a_loss_that_is_no_number_leaves_a_gap():
    whole = plots.learning_curves({"round 1": steps(3.0, 2.8, 2.6, 2.4, 2.2)})
    assert strokes_of_the_curve(whole) == 1
    gap = float("nan")
    broken = plots.learning_curves({"round 1": steps(3.0, 2.8, gap, 2.4, 2.2)})
    assert strokes_of_the_curve(broken) == 2


def strokes_of_the_curve(svg):
    """Counts how often the pen is set down to draw the one curve of a figure."""
    curve = r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none; stroke: var\('
    return re.search(curve + r"--round-1\)", svg)[1].count("M ")


@pytest.mark.parametrize("rounds", [1, 7])
def test_any_number_of_rounds_can_be_drawn(rounds):
    values = {n: [0.5, 0.6] for n in range(1, rounds + 1)}
    svg = plots.similarity_histogram(values)
    assert f">round {rounds}</text>" in svg
