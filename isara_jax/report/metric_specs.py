"""The metrics of an evaluation: their labels, and which direction is better."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """How the report shows one entry of `metrics` in evaluation.json.

    `digits` are those after the decimal point.
    """

    name: str
    label: str
    better: Literal["lower", "higher", "neither"]
    digits: int
    meaning: str


METRICS = (
    MetricSpec(
        name="nll",
        label="NLL",
        better="lower",
        digits=3,
        meaning="surprise at the true references, nats a token",
    ),
    MetricSpec(
        name="rouge_l_difference",
        label="ROUGE-L difference",
        better="higher",
        digits=2,
        meaning="100 x (overlap with the closest true reference - closest false one)",
    ),
    MetricSpec(
        name="mc1",
        label="MC1",
        better="higher",
        digits=3,
        meaning="share of questions whose best true reference is the most probable",
    ),
    MetricSpec(
        name="mc2",
        label="MC2",
        better="higher",
        digits=3,
        meaning="probability of the true references among all references",
    ),
    MetricSpec(
        name="collapse",
        label="collapse",
        better="lower",
        digits=3,
        meaning="share of answers with the most common first three words",
    ),
    MetricSpec(
        name="distinct_1",
        label="distinct-1",
        better="higher",
        digits=3,
        meaning="different words / words of all answers",
    ),
    MetricSpec(
        name="distinct_2",
        label="distinct-2",
        better="higher",
        digits=3,
        meaning="different word pairs / word pairs of all answers",
    ),
    MetricSpec(
        name="mean_words",
        label="words",
        better="neither",
        digits=1,
        meaning="mean length of an answer",
    ),
)
