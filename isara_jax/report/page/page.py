"""report.html: one file that needs no network and shows what a run did.

Texts of models and users reach the page through Jinja's autoescape or `embed_run`. Only
the style, the script and the charts of this package are inserted unescaped. The page's
Content-Security-Policy allows this script alone, by its hash.
"""

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isara_jax.report import round_statistics as statistics
from isara_jax.report.comparison import compare_with_baselines
from isara_jax.report.metric_specs import METRICS
from isara_jax.report.page.charts import draw_charts
from isara_jax.report.page.embedded_json import embed_run
from isara_jax.report.run_data import RunData, read_run
from isara_jax.run import Workdir
from isara_jax.runtime.files import write_text

# Flags that the page shows before the others.
FACTS = ("model", "seeds", "heldout", "rounds", "candidates", "demos", "alpha", "seed")


def write_report(workdir: Workdir) -> Path:
    """Writes report.html of a run, finished or not, and returns its path.

    Raises:
      InputError: it is no run's folder, or a file of it is damaged.
    """
    page = render(read_run(workdir))
    # JSON can hold a lone surrogate, which UTF-8 cannot encode.
    write_text(workdir.report, page.encode("utf-8", "replace").decode("utf-8"))
    return workdir.report


def render(run: RunData) -> str:
    """Returns the page's HTML, which depends on the run only."""
    environment = Environment(
        loader=PackageLoader("isara_jax.report.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    environment.filters["duration"] = _duration
    script = _template("page.js")
    return environment.get_template("page.html").render(
        run=run,
        verdict=compare_with_baselines(run),
        facts={name: run.manifest.get("flags", {}).get(name) for name in FACTS},
        metrics=METRICS,
        funnel=statistics.funnel(run.rounds),
        filtered=statistics.filtered(run.rounds),
        statistics=statistics,
        charts=draw_charts(run),
        rules=sorted({s.rule for one in run.rounds for s in one.rejected}),
        style=Markup(_template("page.css")),  # ours
        script=Markup(script),  # ours
        script_hash=_sha256(script),
        data=embed_run(run),
    )


def _template(name: str) -> str:
    file = resources.files("isara_jax.report.page").joinpath("templates", name)
    return file.read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _shown(value: Any) -> str:
    """Formats a value of the manifest."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
