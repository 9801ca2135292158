"""Matplotlib charts as SVG elements to embed in the page.

Each is 360 CSS pixels wide, so that its text stays readable on a phone. The colours are
placeholders that become CSS variables of the page, which has a light and a dark theme.
The SVG holds no date and no random id, so equal runs give equal bytes.
"""

import html
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isara_jax.report.metric_specs import MetricSpec
from isara_jax.report.run_data import Evaluation, MetricValue, TrainingStep

INK, FAINT = "#0a0b01", "#0a0b02"
PRETRAINED, SFT, OTHER = "#0a0b03", "#0a0b04", "#0a0b05"
ROUNDS = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))

_CSS = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    PRETRAINED: "var(--pretrained)",
    OTHER: "var(--other)",
    SFT: "var(--sft)",
    **{colour: f"var(--round-{n})" for n, colour in enumerate(ROUNDS, start=1)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
}
_WIDTH, _HEIGHT = 3.75, 2.5
_NO_METADATA: dict[str, Any] = {"Date": None, "Creator": None}


def learning_curves(curves: Mapping[str, Sequence[TrainingStep]]) -> str:
    """Draws the loss by optimiser step, one line for each finetuning."""

    def draw(axes: Axes) -> None:
        for n, (name, steps) in enumerate(curves.items()):
            axes.plot(
                [step.step for step in steps],
                [step.loss for step in steps],
                label=_brief(name),
                linestyle=_dash(n),
                color=_colour(name),
                marker="o" if len(steps) < 20 else "",
                markersize=3,
            )
        axes.set(xlabel="optimiser step", ylabel="loss, nats a token")
        axes.legend(fontsize=8)

    return _svg(f"Loss by step for {', '.join(curves)}", "curves", draw)


def metric_with_intervals(metric: MetricSpec, models: Sequence[Evaluation]) -> str:
    """Draws one metric, one row for each model: the value and its 95 % interval."""
    rows = [(m.model, m.metrics[metric.name]) for m in models]

    def draw(axes: Axes) -> None:
        for n, (model, value) in enumerate(rows):
            _draw_interval(axes, n, value, colour=_colour(model))
        axes.axvline(rows[0][1].value, color=PRETRAINED, linewidth=1, linestyle=":")
        axes.set_yticks(range(len(rows)), [_brief(model) for model, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=5)

    label = "; ".join(
        f"{model} {m.value:.{metric.digits}f} "
        f"({m.low:.{metric.digits}f} to {m.high:.{metric.digits}f})"
        for model, m in rows
    )
    height = 0.5 + 0.3 * len(rows)
    return _svg(f"{metric.label}: {label}", metric.name, draw, height=height)


def similarity_histogram(similarities: Mapping[int, Sequence[float]]) -> str:
    """Draws the cosine similarity to the nearest seed, one line for each round."""
    lowest = min(min(values, default=0.0) for values in similarities.values())
    edges = np.linspace(min(0.0, lowest), 1.0, 17)

    def draw(axes: Axes) -> None:
        for number, values in similarities.items():
            counts, _ = np.histogram(values, bins=edges)
            axes.step(
                edges,
                [*counts, counts[-1]],
                where="post",
                linewidth=1.8,
                color=_round_colour(number),
                linestyle=_dash(number),
                label=f"round {number}",
            )
        axes.set(xlabel="cosine similarity to the nearest seed", ylabel="kept pairs")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="upper left")

    return _svg("Kept pairs by similarity to the nearest seed", "similarity", draw)


def by_round(title: str, values: Mapping[int, float], *, limit: float | None) -> str:
    """Draws a share by round, and a dashed line at the limit if there is one."""

    def draw(axes: Axes) -> None:
        axes.plot(list(values), list(values.values()), "o-", color=ROUNDS[1])
        for number, value in values.items():
            axes.annotate(
                f"{value:.2f}",
                (number, value),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
            )
        if limit is not None:
            axes.axhline(limit, color=SFT, linestyle="--", linewidth=1.2)
            axes.annotate(
                f"stop below {limit:g}",
                (1, limit),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right",
            )
        axes.set(xlabel="round", ylim=(0, 1.12), xlim=_around(values))
        axes.set_xticks(list(values))

    shown = ", ".join(f"round {n} {value:.2f}" for n, value in values.items())
    name = re.sub(r"\W+", "-", title)
    return _svg(f"{title}: {shown}", name, draw, height=2.0)


def _draw_interval(axes: Axes, row: int, value: MetricValue, *, colour: str) -> None:
    axes.plot([value.low, value.high], [row, row], color=colour, linewidth=2.4)
    axes.plot([value.value], [row], "o", color=colour, markersize=6)


def _around(values: Mapping[int, float]) -> tuple[float, float]:
    return min(values) - 0.5, max(values) + 0.5


def _colour(name: str) -> str:
    if name == "pretrained":
        return PRETRAINED
    if name.startswith("SFT"):
        return SFT
    found = re.search(r"round (\d+)", name)
    return _round_colour(int(found[1])) if found else OTHER


def _round_colour(number: int) -> str:
    return ROUNDS[(number - 1) % len(ROUNDS)]


def _brief(name: str) -> str:
    """Shortens a long name to leave room for the drawing."""
    return name if len(name) <= 24 else f"{name[:21]}..."


def _dash(number: int) -> Any:
    return DASHES[number % len(DASHES)]


def _svg(
    label: str, name: str, draw: Callable[[Axes], None], *, height: float = _HEIGHT
) -> str:
    """Returns the drawing as SVG, with a label for screen readers.

    `name` prefixes the ids, which makes them unique on the page, and salts the hashes
    in them, which makes them reproducible.
    """
    text = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        with warnings.catch_warnings():
            # The reader's fonts draw the text; ours only measures it.
            warnings.filterwarnings("ignore", r"Glyph .* missing", UserWarning)
            figure.savefig(text, format="svg", metadata=_NO_METADATA)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for placeholder, css in _CSS.items():
        svg = svg.replace(placeholder, css)
    label = html.escape(label, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
