"""The `proprio` observation group: what a robot without any camera knows of itself."""

import torch
from torch import Tensor

from dexgrasp_sim.control.decoder import ActionSpace, Decoder
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.kuka_allegro import ARM_JOINTS, FINGERTIPS, HAND_JOINTS
from dexgrasp_sim.robot.urdf import RobotModel
from dexgrasp_sim.specs import TensorSpec, Term, flat_spec


def proprioception_spec(action: ActionSpace) -> TensorSpec:
    """Terms of the `proprio` group in order, with units and frames."""
    palm_goal, *other_goals = action.intent_terms
    return flat_spec(
        "proprio",
        (
            Term("joint_position", len(ARM_JOINTS) + len(HAND_JOINTS), "rad"),
            Term("arm_joint_velocity", len(ARM_JOINTS), "rad/s"),
            Term("fingertip_position", 3 * len(FINGERTIPS), "m", "base"),
            Term("grasp_center_position", 3, "m", "base"),
            palm_goal,
            Term("hand_tracking_error", len(HAND_JOINTS), "rad"),
            *other_goals,
            Term("last_action", len(action.dimensions), "1"),
            Term("episode_time_fraction", 1, "1"),
        ),
    )


class Proprioception:
    """Computes the group from measurements; one code for N simulated robots and for a real one."""

    def __init__(self, robot: RobotModel, action: ActionSpace) -> None:
        self.spec = proprioception_spec(action)
        self._palm_goal_size = action.intent_terms[0].size
        names = list(robot.joint_names)
        self._arm = [names.index(joint) for joint in ARM_JOINTS]
        self._hand = [names.index(joint) for joint in HAND_JOINTS]
        self._kinematics = Kinematics(robot, (*FINGERTIPS, "grasp_center"))

    def hand_points(self, joint_position: Tensor) -> Tensor:
        """[N, 5, 3] m, base frame: the fingertips and the grasp centre at [N, 23] rad."""
        return self._kinematics.forward(joint_position).position

    def observe(
        self,
        joint_position: Tensor,
        joint_velocity: Tensor,
        decoder: Decoder,
        last_action: Tensor,
        time_fraction: Tensor,
        out: Tensor,
    ) -> None:
        """Writes the group.

        Args:
            joint_position: [N, 23] rad, measured, in the robot's joint order.
            joint_velocity: [N, 23] rad/s, measured.
            decoder: The decoder that produced the present joint targets.
            last_action: [N, action_dim], the action of the previous control step.
            time_fraction: [N], 0 at the start of an episode to 1 at its time-out.
            out: [N, P] float32, written in place.
        """
        intent, palm = decoder.intent(), self._palm_goal_size
        torch.cat(
            (
                joint_position,
                joint_velocity[:, self._arm],
                self.hand_points(joint_position).flatten(1),
                intent[:, :palm],
                decoder.target[:, self._hand] - joint_position[:, self._hand],
                intent[:, palm:],
                last_action,
                time_fraction.unsqueeze(1),
            ),
            dim=1,
            out=out,
        )
