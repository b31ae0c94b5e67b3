"""The demo's report: one HTML page with the learning curve, the figures and the film."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from jinja2 import Environment, PackageLoader, select_autoescape

from dexgrasp_learner.storage.provenance import provenance


def write_report(folder: Path, figures: Mapping[str, Any]) -> Path:
    """Writes `report.html` into a folder that holds `grasps.mp4`.

    Args:
        folder: The folder.
        figures: What `dexgrasp demo` measured; see `demo.py`.
    """
    loader = PackageLoader("dexgrasp_deploy", "templates")
    template = Environment(loader=loader, autoescape=select_autoescape()).get_template(
        "report.html"
    )
    records = read_metrics(Path(figures["training"]["run_dir"]) / "metrics.jsonl")
    page = template.render(
        figures=figures,
        curve=_as_data_url(learning_curve(records)),
        provenance=provenance(),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a run's `metrics.jsonl`; half a line at the end (killed run) is ignored."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def learning_curve(records: list[dict[str, Any]]) -> plt.Figure:
    """Success of exploring episodes and of evaluations, and reward, over training time."""
    figure, success_axis = plt.subplots(figsize=(8.0, 3.6), dpi=120)
    reward_axis = success_axis.twinx()
    _plot(reward_axis, records, "run/reward", color="#b8c4d6", linewidth=1.2)
    reward_axis.set_ylabel("reward per step", color="#7d8ba1")
    labels = {"color": "#1f6fb2", "label": "exploring episodes"}
    _plot(success_axis, records, "episode/success", **labels)
    labels = {"color": "#d1495b", "label": "evaluation, mean action"}
    _plot(success_axis, records, "evaluation/success_rate", marker="o", linestyle="", **labels)
    success_axis.set(xlabel="minutes of training", ylabel="episode success", ylim=(0.0, 1.02))
    success_axis.set_zorder(reward_axis.get_zorder() + 1)
    success_axis.patch.set_visible(False)
    if success_axis.get_lines():
        success_axis.legend(loc="upper left", frameon=False)
    success_axis.grid(alpha=0.25)
    figure.tight_layout()
    return figure


def _plot(axis: plt.Axes, records: list[dict[str, Any]], key: str, **style: Any) -> None:
    """A figure over training time, if any record has it."""
    points = [(record["run/minutes"], record[key]) for record in records if key in record]
    if points:
        axis.plot(*zip(*points, strict=True), **style)


def _as_data_url(figure: plt.Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
