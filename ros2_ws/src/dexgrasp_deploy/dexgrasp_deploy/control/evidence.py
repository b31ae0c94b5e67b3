"""What speaks for a grasp: measured fingers, measured lift, and the policy's own estimate."""

from dataclasses import dataclass as plain_dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_sim.config import STRICT
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

Positive = Annotated[float, Field(gt=0)]
Vector = NDArray[np.float64]


@dataclass(frozen=True, config=STRICT)
class EvidenceConfig:
    """When a hand counts as closed on something.

    Attributes:
        stall_rad: A finger joint stalls that stands this far short of its closing command. In
            scripted grasps of the laptop's objects 3 to 9 joints do, by 0.18 to 0.44 rad.
        settle_s: The hand counts as closed, and as open again, after this long.
        lifted_m: Rise of the closed hand from which on it counts as lifting.
        reach_m: The object must be estimated this near to the grasp centre.
    """

    stall_rad: Positive = 0.08
    settle_s: Positive = 0.2
    lifted_m: Positive = 0.02
    reach_m: Positive = 0.2


@plain_dataclass(frozen=True)
class Evidence:
    """What is known about a grasp at one time.

    Attributes:
        stalled: Finger joints that stand short of their closing command.
        closed: Thumb and another finger are closed on something.
        lift_m: Rise of the grasp centre since the hand closed, by forward kinematics of the
            measured joints; 0 where it is not closed.
        estimate_m: [3] m, the policy's estimate of the object's centre; None: it makes none.
        in_workspace: Whether the estimate lies in the workspace of the task; None without one.
        at_hand: Whether it lies at the grasp centre; None without one.
        drops: How often something that was lifted was lost.
    """

    stalled: tuple[str, ...] = ()
    closed: bool = False
    lift_m: float = 0.0
    estimate_m: Vector | None = None
    in_workspace: bool | None = None
    at_hand: bool | None = None
    drops: int = 0

    def is_grasp(self, lift_height_m: float) -> bool:
        """Whether all that is known speaks for an object held at this height above its start."""
        seen = self.in_workspace is not False and self.at_hand is not False
        return self.closed and self.lift_m >= lift_height_m and seen

    def __str__(self) -> str:
        if self.estimate_m is None:
            seen = "this policy does not estimate where the object is"
        else:
            place = ", ".join(f"{value:.2f}" for value in self.estimate_m)
            where = "in the workspace" if self.in_workspace else "outside the workspace"
            at = "at the hand" if self.at_hand else "not at the hand"
            seen = f"the object is estimated at ({place}) m, {where}, {at}"
        closed = (
            f"the hand is closed on something ({len(self.stalled)} joints stall)"
            if self.closed
            else "the hand is not closed on anything"
        )
        dropped = f"; dropped {self.drops} times" if self.drops else ""
        return f"{closed}; it rose {self.lift_m:.3f} m since; {seen}{dropped}"


class EvidenceTracker:
    """Collects the evidence of one episode after the other."""

    def __init__(self, robot: Robot, task: GraspConfig, config: EvidenceConfig) -> None:
        self._robot, self._config = robot, config
        lower, upper = task.workspace
        self._workspace = np.array(lower), np.array(upper)
        self._center = Kinematics(robot, [robot.grasp_center])
        self._columns = {
            finger.name: np.array(robot.joint_indices(list(finger.joints)))
            for finger in robot.fingers
        }
        self._open = np.zeros(robot.num_joints)
        self.begin(self._open)

    def begin(self, open_posture: Vector) -> None:
        """Begins an episode at [J] rad with an open hand: where commands leave it, they close."""
        self._open = open_posture
        self._closed = False
        self._trail: list[tuple[float, Vector]] = []
        self._changing_since_s: float | None = None
        self._height_m = 0.0
        self._lifting = False
        self._drops = 0
        self.evidence = Evidence()

    @property
    def lifting(self) -> bool:
        """Whether the closed hand has risen."""
        return self._lifting

    def trail(self, release_m: float) -> Vector:
        """[T, J] rad, the commands back to where the hand closed, newest first; T may be 0.

        It ends `release_m` above the lowest place that the closed hand was at.
        """
        back = []
        for height_m, command in reversed(self._trail):
            back.append(command)
            if height_m <= self._trail[0][0] + release_m:
                break
        return np.array(back).reshape(-1, self._robot.num_joints)

    def observe(
        self, measured: Measurement, command: Vector, estimate_m: Vector | None, now_s: float
    ) -> Evidence:
        """Adds a control period.

        Args:
            measured: The joints.
            command: [J] rad, sent last.
            estimate_m: [3] m, the policy's estimate of the object's centre, base frame.
            now_s: Monotonic time.
        """
        stalled = self._stalled(measured.position, command)
        thumb = stalled.get(self._robot.thumb, [])
        closed = bool(thumb) and any(
            joints for finger, joints in stalled.items() if finger != self._robot.thumb
        )
        center = self._grasp_center(measured.position)
        self._settle(closed, float(center[2]), now_s)
        self._follow(closed or self._closed, float(center[2]), command)
        lift_m = float(center[2]) - self._height_m if self._closed else 0.0
        self._lifting |= self._closed and lift_m >= self._config.lifted_m
        names = tuple(name for joints in stalled.values() for name in joints)
        self.evidence = Evidence(
            stalled=names,
            closed=self._closed,
            lift_m=lift_m,
            estimate_m=estimate_m,
            in_workspace=self._in_workspace(estimate_m),
            at_hand=self._at_hand(estimate_m, center),
            drops=self._drops,
        )
        return self.evidence

    def _settle(self, closed: bool, height_m: float, now_s: float) -> None:
        """Follows whether the hand is closed once that has lasted long enough."""
        if closed == self._closed:
            self._changing_since_s = None
            if self._closed:
                self._height_m = min(self._height_m, height_m)
            return
        if self._changing_since_s is None:
            self._changing_since_s = now_s
        if now_s - self._changing_since_s < self._config.settle_s - 1e-6:
            return
        self._closed, self._changing_since_s = closed, None
        if closed:
            self._height_m = height_m
        elif self._lifting:
            self._drops += 1
            self._lifting = False

    def _follow(self, closed: bool, height_m: float, command: Vector) -> None:
        """Notes the commands since the closed hand was lowest."""
        trail = self._trail
        if not closed or (trail and height_m <= trail[0][0]):
            trail.clear()
        if closed and not (trail and np.array_equal(trail[-1][1], command)):
            trail.append((height_m, command))

    def _stalled(self, position: Vector, command: Vector) -> dict[str, list[str]]:
        """Joints by finger whose command closes them further than they stand."""
        closing = np.sign(command - self._open)
        short = closing * (command - position)
        names = self._robot.joint_names
        return {
            finger: [names[j] for j in columns if short[j] > self._config.stall_rad]
            for finger, columns in self._columns.items()
        }

    def _grasp_center(self, position: Vector) -> Vector:
        frames = self._center.forward(torch.from_numpy(position).float()[None])
        return frames.position[0, 0].double().numpy()

    def _in_workspace(self, estimate_m: Vector | None) -> bool | None:
        if estimate_m is None:
            return None
        lower, upper = self._workspace
        return bool(((estimate_m >= lower) & (estimate_m <= upper)).all())

    def _at_hand(self, estimate_m: Vector | None, center: Vector) -> bool | None:
        if estimate_m is None:
            return None
        return bool(np.linalg.norm(estimate_m - center) <= self._config.reach_m)
