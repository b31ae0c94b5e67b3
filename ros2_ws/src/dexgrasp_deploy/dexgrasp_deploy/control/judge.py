"""Judges a grasp from the motion of the object, by the rule of the training metric."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import JointSample
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig


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


class GraspJudge:
    """Success: the object reached the goal region and stayed until the end, with the hand at it.

    This is the `success` of a training episode, see `SuccessConfig`, computed from topics instead
    of the simulator's state.
    """

    def __init__(self, robot: Robot, task: GraspConfig, start_height_m: float) -> None:
        """Begins an episode.

        Args:
            robot: The robot.
            task: The training task; it has the rule and the goal.
            start_height_m: Height of the object's centre at rest, base frame.
        """
        self._rule = task.success
        self._goal_m = np.array(task.goal_at(start_height_m))
        self._names = robot.joint_names
        self._kinematics = Kinematics(robot, (*robot.fingertips, robot.grasp_center))
        self._start_height_m = start_height_m
        self._landed = task.spawn.height_m is None
        self._inside_since_s: float | None = None
        self._position: NDArray[np.float64] | None = None
        self._stamp_s = 0.0
        self.max_lift_m = 0.0

    def observe(self, object_position: NDArray[np.float64], stamp_s: float) -> None:
        """Adds a position of the object: [3] m, base frame, at a monotonic time."""
        lift_m = float(object_position[2]) - self._start_height_m
        self._landed |= lift_m < self._rule.height_m / 2
        if not self._landed:
            lift_m = 0.0  # it is still falling to its start position, see `EpisodeTracker`
        self.max_lift_m = max(self.max_lift_m, lift_m)
        self._position, self._stamp_s = object_position, stamp_s
        distance_m = float(np.linalg.norm(object_position - self._goal_m))
        if not self._rule.in_region(lift_m, distance_m):
            self._inside_since_s = None
        elif self._inside_since_s is None:
            self._inside_since_s = stamp_s

    def success(self, joints: JointSample) -> bool:
        """The verdict at the end of the episode.

        Args:
            joints: The robot at that time.
        """
        if self._inside_since_s is None or self._position is None:
            return False
        held = self._stamp_s - self._inside_since_s >= self._rule.hold_s
        return held and self._farthest_m(joints, self._position) < self._rule.reach_m

    def _farthest_m(self, joints: JointSample, object_position: NDArray[np.float64]) -> float:
        """Largest distance of a fingertip or the grasp centre from the object."""
        place = {name: index for index, name in enumerate(joints.names)}
        position = joints.position[[place[name] for name in self._names]]
        frames = self._kinematics.forward(torch.from_numpy(position).float().unsqueeze(0))
        offsets = frames.position[0].double().numpy() - object_position  # [frames, 3]
        return float(np.linalg.norm(offsets, axis=1).max())
