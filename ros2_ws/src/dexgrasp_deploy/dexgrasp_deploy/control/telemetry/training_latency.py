"""The delays of a robot as the `task.latency` of a training."""

from typing import Any

from dexgrasp_deploy.control.telemetry.latency import Latencies, Stage
from dexgrasp_sim.config import parse_config, to_dict
from dexgrasp_sim.tasks.grasp.latency import LatencyConfig

_RANGE = (5, 99)
"""Percentiles between which training draws; the slowest hundredth are faults, not latency."""


def training_latency(latencies: Latencies, reaction_s: float) -> dict[str, Any]:
    """Measured delays as intervals from which every episode of a training draws.

    Args:
        latencies: What was measured.
        reaction_s: Time from the end of publishing until the joints begin to move, which no
            message shows; it is added to the delay of actions.

    Returns:
        The keys of `LatencyConfig`; a stage that was not measured keeps its default.
    """
    period_s = latencies.control_dt_s
    values = {
        "action_delay_s": _interval(latencies, Stage.ACTION_DELAY, 1.0, reaction_s),
        "joint_age_steps": _interval(latencies, Stage.JOINT_AGE, period_s),
        "image_age_steps": _interval(latencies, Stage.IMAGE_AGE, period_s),
    }
    given = {name: {"initial": interval} for name, interval in values.items() if interval}
    config = to_dict(parse_config(LatencyConfig, given, source="measured latency"))
    return {name: {"initial": list(config[name]["initial"])} for name in given}


def _interval(
    latencies: Latencies, stage: Stage, unit_s: float, added_s: float = 0.0
) -> list[float]:
    if not latencies.count(stage):
        return []
    ends = (latencies.percentile_s(stage, percent) for percent in _RANGE)
    return [float(f"{max(0.0, end + added_s) / unit_s:.4g}") for end in ends]
