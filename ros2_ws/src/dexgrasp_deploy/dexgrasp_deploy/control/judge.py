"""Judges a grasp from the motion of the object, by the rule of the training metric."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import JointSample
from dexgrasp_sim.objects.lowest_points import LowestPoints
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.robot.rotation import quaternion_to_matrix
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, REWARD_TERMS, EpisodeTracker

Vector = NDArray[np.float64]

_NO_TERMS = torch.zeros(1, len(REWARD_TERMS))


def summarize(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of some episodes.

    Args:
        outcomes: For each episode at least `success` (None if it was not judged), `steps`,
            `duration_s` from the first to the last action, `deadline_misses` and
            `clamped_commands`; `refused` where the robot did not begin, `stopped` where a
            watchdog ended the episode, `ended`, why, and `home_stops`, where and why it stopped on
            the way home.

    Returns:
        `episodes`, `refused`, `success_rate` (None if none was judged), the measured
        `control_hz`, `deadline_misses`, `safety` (commands that the filter changed, and how often
        each watchdog stopped the robot in an episode and on the way home) and the `outcomes`.
    """
    judged = [item["success"] for item in outcomes if item["success"] is not None]
    periods = sum(max(0, item["steps"] - 1) for item in outcomes)
    duration_s = sum(item["duration_s"] for item in outcomes)
    stops = Counter(item["ended"].split(": ")[0] for item in outcomes if item.get("stopped"))
    # as in "FAULT: the robot did not arrive in time: thumb_joint_1 is ..."
    homes = Counter(
        told.split(": ")[min(1, told.count(": "))]
        for item in outcomes
        for told in item.get("home_stops", ())
    )
    return {
        "episodes": len(outcomes),
        "refused": sum(bool(item.get("refused")) for item in outcomes),
        "success_rate": sum(judged) / len(judged) if judged else None,
        "control_hz": round(periods / duration_s, 2) if duration_s else 0.0,
        "deadline_misses": sum(item["deadline_misses"] for item in outcomes),
        "safety": {
            "clamped_commands": sum(item["clamped_commands"] for item in outcomes),
            "stops": dict(stops),
            "stops_on_the_way_home": dict(homes),
        },
        "outcomes": list(outcomes),
    }


def in_words(figures: Mapping[str, Any]) -> list[str]:
    """Lines for people about the figures of `summarize`: all episodes, then each that failed."""
    outcomes, safety = figures["outcomes"], figures["safety"]
    judged = [item["success"] for item in outcomes if item["success"] is not None]
    lifted = (
        f"{sum(judged)} of {len(judged)} lifted the object" if judged else "nobody judged them"
    )
    stops = sum(safety["stops"].values()) + sum(safety["stops_on_the_way_home"].values())
    lines = [
        f"{figures['episodes']} episodes, {figures['refused']} refused: {lifted}; "
        f"{figures['control_hz']} Hz, {figures['deadline_misses']} periods late, "
        f"{safety['clamped_commands']} commands changed by the safety filter, {stops} stops"
    ]
    for number, item in enumerate(outcomes, 1):
        if not item["success"]:
            lines.append(f"episode {number}, {item.get('object') or 'object'}: {item['ended']}")
    return lines


class GraspJudge:
    """The `success` of a training episode, see `SuccessConfig`, from topics instead of the
    simulator's state: its own `EpisodeTracker` counts the control steps.
    """

    def __init__(self, robot: Robot, task: GraspConfig, object_name: str) -> None:
        """Begins an episode.

        Args:
            robot: The robot.
            task: The training task; it has the rule, the goal and the objects.
            object_name: Which of them lies on the table.

        Raises:
            ValueError: The task has no such object.
        """
        solids = [item.solid for item in task.objects if item.name == object_name]
        if not solids:
            raise ValueError(f"the task has no object {object_name!r}")
        only = torch.zeros(1, dtype=torch.int64)
        self._lowest_points = LowestPoints(solids[:1], only)
        self._tracker = EpisodeTracker(task.success, task.control_dt_s, only)
        self._top_m, self._dt_s = task.table.top_m, task.control_dt_s
        self._goal_m = np.array(task.goal_at(self._top_m + solids[0].rest_height_m))
        self._names = robot.joint_names
        self._kinematics = Kinematics(robot, (*robot.fingertips, robot.grasp_center))
        self._first_s: float | None = None
        self._steps = 0
        self._position: Vector = np.zeros(3)
        self._height = torch.zeros(1)

    @property
    def max_lift_m(self) -> float:
        """Greatest height of the object's lowest point above the table since it lay there."""
        return float(self._tracker.max_height_m[0])

    def observe(self, object_pose: Vector, stamp_s: float) -> None:
        """Adds a pose of the object: [7] xyz m and quaternion wxyz, base frame, at a monotonic
        time. It counts for the control steps that have passed since the pose before.
        """
        self._position = object_pose[:3]
        turn = torch.from_numpy(object_pose[3:]).float()[None]
        below = self._lowest_points.below_center(quaternion_to_matrix(turn))
        self._height = float(object_pose[2]) - below - self._top_m  # [1] m
        if self._first_s is None:
            self._first_s = stamp_s
            self._tracker.begin(torch.zeros(1, dtype=torch.int64), self._height)
        distance = torch.tensor([np.linalg.norm(self._position - self._goal_m)])
        # a stamp that is a rounding error short of a step belongs to it
        passed = int((stamp_s - self._first_s) / self._dt_s + 1e-6) - self._steps
        for _ in range(passed):
            self._steps += 1
            self._tracker.track(torch.tensor([self._steps]), self._height, distance, _NO_TERMS)

    def success(self, joints: JointSample) -> bool:
        """The verdict at the end of the episode.

        Args:
            joints: The robot at that time.
        """
        if not self._steps:
            return False
        step, farthest_m = torch.tensor([self._steps]), torch.tensor([self._farthest_m(joints)])
        rows = self._tracker.rows(step, self._height, farthest_m, torch.tensor([True]))
        return bool(rows[0, EPISODE_FIELDS.index("success")])

    def _farthest_m(self, joints: JointSample) -> float:
        """Largest distance of a fingertip or the grasp centre from the object."""
        place = {name: index for index, name in enumerate(joints.names)}
        position = joints.position[[place[name] for name in self._names]]
        frames = self._kinematics.forward(torch.from_numpy(position).float().unsqueeze(0))
        offsets = frames.position[0].double().numpy() - self._position  # [frames, 3]
        return float(np.linalg.norm(offsets, axis=1).max())
