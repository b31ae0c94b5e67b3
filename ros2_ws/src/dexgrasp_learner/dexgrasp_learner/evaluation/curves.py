"""Curves of a run: what it learned, and how healthy its learning was."""

import base64
import io
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter

from dexgrasp_learner.storage.origin import Records

HEALTH = {
    "update/kl": "KL divergence of an update, nats",
    "update/clip_fraction": "share of clipped samples",
    "update/explained_variance": "explained variance of returns",
    "update/estimate_error": "error of the estimated position, m",
    "update/saturated_actions": "share of actions beyond the range",
    "update/action_std": "exploration noise",
    "update/imitation": "imitation error",
    "adr/level": "difficulty of the task",
}
"""Figures of a record that say whether learning is healthy, see docs/learning.md; a run has those
that its algorithm and its task give."""
_COLUMNS = 3


def learning_curve(records: Records) -> plt.Figure:
    """Success of exploring episodes and of evaluations, and reward, over environment steps.

    Where the task gets harder with success, its difficulty explains why they fall.
    """
    figure, success_axis = plt.subplots(figsize=(8.0, 3.6), dpi=120)
    reward_axis = success_axis.twinx()
    _plot(reward_axis, records, "run/reward", color="#b8c4d6", linewidth=1.2)
    reward_axis.set_ylabel("reward per step", color="#7d8ba1")
    labels = {"color": "#1f6fb2", "label": "exploring episodes"}
    _plot(success_axis, records, "episode/success", **labels)
    labels = {"color": "#d1495b", "label": "evaluation, mean action"}
    _plot(success_axis, records, "evaluation/success_rate", marker="o", linestyle="", **labels)
    labels = {"color": "#3a7d44", "label": "difficulty of the task"}
    _plot(success_axis, records, "adr/level", linestyle=":", **labels)
    success_axis.xaxis.set_major_formatter(EngFormatter())
    success_axis.set(xlabel=_UNITS[_x_key(records)], ylabel="episode success", ylim=(0.0, 1.02))
    success_axis.set_zorder(reward_axis.get_zorder() + 1)
    success_axis.patch.set_visible(False)
    if success_axis.get_lines():
        success_axis.legend(loc="lower right", framealpha=0.8)
    success_axis.grid(alpha=0.25)
    figure.tight_layout()
    return figure


def health_curves(records: Records) -> plt.Figure | None:
    """A small plot for each of `HEALTH` that the run recorded; None where there is none."""
    keys = [key for key in HEALTH if any(record.get(key) is not None for record in records)]
    if not keys:
        return None
    rows = -(-len(keys) // _COLUMNS)
    figure, axes = plt.subplots(
        rows, _COLUMNS, figsize=(8.0, 1.9 * rows), dpi=120, squeeze=False, sharex=True
    )
    for axis, key in zip(axes.flat, keys, strict=False):
        _plot(axis, records, key, color="#1f6fb2", linewidth=1.0)
        axis.set_title(HEALTH[key], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(keys) :]:
        axis.set_axis_off()
    figure.supxlabel(_UNITS[_x_key(records)], fontsize=8)
    figure.tight_layout()
    return figure


def as_png(figure: plt.Figure) -> bytes:
    """The figure as a PNG file without its date; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def as_data_url(figure: plt.Figure) -> str:
    """The figure as the `src` of an image in a page that loads nothing; it is closed."""
    return image_data_url(as_png(figure))


def image_data_url(png: bytes) -> str:
    """A PNG file as the `src` of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


_UNITS = {"run/env_steps": "environment steps", "run/minutes": "minutes of training"}


def _x_key(records: Records) -> str:
    return "run/env_steps" if any("run/env_steps" in r for r in records) else "run/minutes"


def _plot(axis: plt.Axes, records: Records, key: str, **style: Any) -> None:
    """A figure over the run, if any record has it."""
    x_key = _x_key(records)
    points = [(record[x_key], record[key]) for record in records if key in record]
    if points:
        axis.plot(*zip(*points, strict=True), **style)
