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

from dexgrasp_learner.run_folder import provenance


def write_report(folder: Path, figures: Mapping[str, Any]) -> Path:
    """Writes `report.html` into a folder that holds `grasps.mp4`.

    Args:
        folder: Where to.
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
    """The records of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def learning_curve(records: list[dict[str, Any]]) -> plt.Figure:
    """Success of exploring episodes and of evaluations, and reward, over training time."""
    figure, success_axis = plt.subplots(figsize=(8.0, 3.6), dpi=120)
    reward_axis = success_axis.twinx()
    minutes = [record["run/minutes"] for record in records]
    reward_axis.plot(
        minutes, [record["run/reward"] for record in records], color="#b8c4d6", linewidth=1.2
    )
    reward_axis.set_ylabel("reward per step", color="#7d8ba1")
    key = "episode/success"
    exploring = [(record["run/minutes"], record[key]) for record in records if key in record]
    success_axis.plot(*zip(*exploring, strict=True), color="#1f6fb2", label="exploring episodes")
    key = "evaluation/success_rate"
    evaluated = [(record["run/minutes"], record[key]) for record in records if key in record]
    if evaluated:
        success_axis.plot(
            *zip(*evaluated, strict=True), "o", color="#d1495b", label="evaluation, mean action"
        )
    success_axis.set(xlabel="minutes of training", ylabel="episode success", ylim=(0.0, 1.02))
    success_axis.set_zorder(reward_axis.get_zorder() + 1)
    success_axis.patch.set_visible(False)
    success_axis.legend(loc="upper left", frameon=False)
    success_axis.grid(alpha=0.25)
    figure.tight_layout()
    return figure


def _as_data_url(figure: plt.Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
