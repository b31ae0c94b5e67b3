"""The demo's report: one HTML page with the films, the figures and the learning curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import PackageLoader

from dexgrasp_learner.evaluation.curves import as_data_url, health_curves, learning_curve
from dexgrasp_learner.evaluation.figures import Assessment
from dexgrasp_learner.evaluation.pages import page_templates
from dexgrasp_learner.storage.origin import METRICS_FILE, read_metrics


def write_report(
    folder: Path, figures: Mapping[str, Any], assessments: Sequence[Assessment]
) -> Path:
    """Writes `report.html` into a folder that holds `shipped.mp4` and `trained.mp4`.

    Args:
        folder: The folder.
        figures: What `dexgrasp demo` measured, with `provenance`; see `demo.py`.
        assessments: Of the shipped policy, the new one, and others.
    """
    templates = page_templates(PackageLoader("dexgrasp_deploy", "templates"))
    records = read_metrics(Path(figures["training"]["run_dir"]) / METRICS_FILE)
    health = health_curves(records)
    page = templates.get_template("report.html").render(
        figures=figures,
        assessments=assessments,
        curve=as_data_url(learning_curve(records)),
        health=as_data_url(health) if health else None,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
