"""The `proprio` observation group: the robot's own state, known without cameras."""

import torch
from torch import Tensor

from dexgrasp_sim.control.decoder import ActionSpace, Decoder
from dexgrasp_sim.device_graphs import Captured
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.specs import TensorSpec, Term, flat_spec


def proprioception_spec(action: ActionSpace, robot: Robot) -> TensorSpec:
    """Terms of the `proprio` group in order, with units and frames."""
    palm_goal, *other_goals = action.intent_terms(robot)
    return flat_spec(
        "proprio",
        (
            Term("joint_position", robot.num_joints, "rad"),
            Term("arm_joint_velocity", len(robot.arm_joints), "rad/s"),
            Term("fingertip_position", 3 * len(robot.fingertips), "m", "base"),
            Term("grasp_center_position", 3, "m", "base"),
            palm_goal,
            Term("hand_tracking_error", len(robot.hand_joints), "rad"),
            *other_goals,
            Term("last_action", len(action.action_names(robot)), "1"),
            Term("episode_time_fraction", 1, "1"),
        ),
    )


class Proprioception:
    """Computes the group from measurements, for N simulated robots or a real one."""

    def __init__(
        self, robot: Robot, action: ActionSpace, device: torch.device | str = "cpu"
    ) -> None:
        self.spec = proprioception_spec(action, robot)
        self._palm_goal_size = action.intent_terms(robot)[0].size
        self._arm, self._hand = robot.arm, robot.hand
        self._kinematics = Kinematics(robot, (*robot.fingertips, robot.grasp_center), device)
        self._points = Captured(self._points_of)

    def hand_points(self, joint_position: Tensor) -> Tensor:
        """[N, F + 1, 3] m, base frame: the fingertips and the grasp centre at [N, J] rad."""
        return self._points(joint_position)[0]

    def _points_of(self, joint_position: Tensor) -> tuple[Tensor]:
        return (self._kinematics.forward(joint_position).position,)

    def observe(
        self,
        joint_position: Tensor,
        joint_velocity: Tensor,
        decoder: Decoder,
        last_action: Tensor,
        time_fraction: Tensor,
        out: Tensor,
        hand_points: Tensor | None = None,
    ) -> None:
        """Writes the group.

        Args:
            joint_position: [N, J] rad, measured, in the robot's joint order.
            joint_velocity: [N, J] rad/s, measured.
            decoder: The decoder that produced the current joint targets.
            last_action: [N, action_dim], the action of the previous control step.
            time_fraction: [N], 0 at the start of an episode to 1 at its time-out.
            out: [N, P] float32, written in place.
            hand_points: `hand_points` of `joint_position`, if already computed.
        """
        if hand_points is None:
            hand_points = self.hand_points(joint_position)
        intent, palm = decoder.intent(), self._palm_goal_size
        torch.cat(
            (
                joint_position,
                joint_velocity[:, self._arm],
                hand_points.flatten(1),
                intent[:, :palm],
                decoder.target[:, self._hand] - joint_position[:, self._hand],
                intent[:, palm:],
                last_action,
                time_fraction.unsqueeze(1),
            ),
            dim=1,
            out=out,
        )
