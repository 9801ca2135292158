"""report.html: one file that needs no network and shows what a run did.

Whatever a model or a user wrote reaches the page through Jinja's autoescape or through
`embedded`; only our own style, script and figures go in as they are. The page's
Content-Security-Policy names our script by its hash, so no other can run.
"""

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isara_jax.report import round_statistics as progress
from isara_jax.report.comparison import judge
from isara_jax.report.metrics import MEASURES
from isara_jax.report.page.charts import charts
from isara_jax.report.page.embedded_json import embedded
from isara_jax.report.run_data import Run, gather
from isara_jax.run import Workdir
from isara_jax.runtime.files import write_text

FACTS = ("model", "seeds", "heldout", "rounds", "candidates", "demos", "alpha", "seed")


def write_report(workdir: Workdir) -> Path:
    """Writes report.html for as much of the run as there is, and returns its path.

    Raises:
      InputError: it is no run's folder, or a file of it is damaged.
    """
    page = render(gather(workdir))
    # A lone surrogate, which JSON can spell, has no UTF-8.
    write_text(workdir.report, page.encode("utf-8", "replace").decode("utf-8"))
    return workdir.report


def render(run: Run) -> str:
    """Returns the page of a run; the same run gives the same text."""
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
        verdict=judge(run),
        facts={name: run.manifest.get("flags", {}).get(name) for name in FACTS},
        measures=MEASURES,
        funnel=progress.funnel(run.rounds),
        filtered=progress.filtered(run.rounds),
        progress=progress,
        charts=charts(run),
        rules=sorted({s.rule for one in run.rounds for s in one.rejected}),
        style=Markup(_template("page.css")),  # ours
        script=Markup(script),  # ours
        script_hash=_sha256(script),
        data=embedded(run),
    )


def _template(name: str) -> str:
    file = resources.files("isara_jax.report.page").joinpath("templates", name)
    return file.read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _shown(value: Any) -> str:
    """Returns a manifest's value as text."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
