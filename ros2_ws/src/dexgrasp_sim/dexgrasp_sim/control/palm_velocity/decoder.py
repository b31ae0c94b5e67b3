"""Policy action to joint position targets: palm velocity by inverse kinematics, hand synergies."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.palm_velocity.differential_ik import DifferentialIk
from dexgrasp_sim.robot.kinematics import Chain
from dexgrasp_sim.robot.kuka_allegro import ARM_JOINTS, ARM_PREGRASP, FINGERS, GRASP_CENTER
from dexgrasp_sim.robot.urdf import RobotModel
from dexgrasp_sim.specs import Term

ActionName = Literal[
    "palm_x",
    "palm_y",
    "palm_z",
    "palm_yaw",
    "finger_closure",
    "thumb_closure",
    "finger_spread",
]
Positive = Annotated[float, Field(gt=0)]
Vector3 = tuple[float, float, float]
FingerPosture = tuple[float, float, float, float]

_ALL_ACTIONS: tuple[ActionName, ...] = ActionName.__args__  # type: ignore[attr-defined]
_STATE = ("palm_position", "palm_yaw", "closure", "spread", "target")


@dataclass(frozen=True, config=STRICT)
class ActionConfig:
    """Meaning of the action: rates that a value of 1 commands, and the ranges they stay in.

    Attributes:
        kind: Tells this action space from the others.
        dimensions: Which of the seven quantities the policy commands, in action order; the
            others stay at their start value.
        palm_speed_m_s: Speed of the palm target per axis.
        yaw_rate_rad_s: Rate of the palm target about the base z axis.
        closure_rate_per_s: Rate of the finger and thumb closure, 0 open to 1 shut.
        spread_rate_per_s: Rate of the finger spread, -1 to 1.
        workspace_min_m: Lower corner of the box that the palm target stays in, base frame.
        workspace_max_m: Upper corner.
        max_yaw_rad: Largest yaw to either side of the start orientation.
        max_spread_rad: Joint 0 of index (negative) and ring (positive) at spread 1.
        finger_open_rad: Joints 0..3 of index, middle and ring at closure 0.
        finger_shut_rad: The same at closure 1.
        thumb_open_rad: Joints 0..3 of the thumb at closure 0: opposed to the fingers.
        thumb_shut_rad: The same at closure 1.
    """

    kind: Literal["velocity"] = "velocity"
    dimensions: tuple[ActionName, ...] = _ALL_ACTIONS
    palm_speed_m_s: Positive = 0.3
    yaw_rate_rad_s: Positive = 1.8
    closure_rate_per_s: Positive = 1.8
    spread_rate_per_s: Positive = 3.0
    workspace_min_m: Vector3 = (-0.75, -0.10, 0.27)
    workspace_max_m: Vector3 = (-0.35, 0.30, 0.61)
    max_yaw_rad: Positive = 0.8
    max_spread_rad: Positive = 0.3
    finger_open_rad: FingerPosture = (0.0, 0.20, 0.45, 0.45)
    finger_shut_rad: FingerPosture = (0.0, 1.00, 0.90, 0.80)
    thumb_open_rad: FingerPosture = (1.45, 0.30, -0.20, 0.90)
    thumb_shut_rad: FingerPosture = (1.45, 0.20, 0.40, 1.20)

    @model_validator(mode="after")
    def _check(self) -> "ActionConfig":
        if not self.dimensions or len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("`dimensions` must name at least one quantity, each once")
        if any(lo >= hi for lo, hi in zip(self.workspace_min_m, self.workspace_max_m)):
            raise ValueError("`workspace_min_m` must be below `workspace_max_m` on every axis")
        return self

    @property
    def intent_terms(self) -> tuple[Term, ...]:
        """What `ActionDecoder.intent` holds."""
        return (
            Term("palm_target_position", 3, "m", "base"),
            Term("palm_target_yaw", 1, "rad", "base"),
            Term("finger_and_thumb_closure", 2, "1"),
            Term("finger_spread", 1, "1"),
        )


class ActionDecoder:
    """Integrates actions into a palm target and hand closure and solves for joint targets.

    The same object drives N simulated robots in training and one real robot in deployment.
    The joint targets start at `start_position`, always lie inside the joint limits and move the
    arm no faster than its velocity limits. See `Decoder`.

    Attributes:
        action_names: The commanded dimensions.
        action_dim: Their number.
        velocity_target: None: servos get positions only.
        palm_position: [N, 3] m, target of the grasp centre, base frame.
        palm_yaw: [N] rad, turn of the palm about base z from its start.
        closure: [N, 2], of the fingers and of the thumb, 0 open to 1 shut.
        spread: [N], -1 to 1.
        target: [N, 23] rad, the present joint targets.
    """

    def __init__(
        self, config: ActionConfig, robot: RobotModel, num_envs: int, control_dt_s: float
    ) -> None:
        self.config = config
        self.velocity_target: Tensor | None = None
        self.action_names: tuple[ActionName, ...] = config.dimensions
        self.action_dim = len(config.dimensions)
        self._columns = [_ALL_ACTIONS.index(name) for name in config.dimensions]
        self._dt_s = control_dt_s
        names = list(robot.joint_names)
        self._arm = [names.index(joint) for joint in ARM_JOINTS]
        self._fingers = {
            finger: [names.index(f"{finger}_joint_{i}") for i in range(4)] for finger in FINGERS
        }
        self._lower = torch.tensor([robot.joints[name].lower for name in names])
        self._upper = torch.tensor([robot.joints[name].upper for name in names])
        self._workspace = torch.tensor([config.workspace_min_m, config.workspace_max_m])
        self._start = self._start_position()
        chain = Chain(robot, GRASP_CENTER)
        arm = chain.joint_indices
        max_step = torch.from_numpy(robot.velocity_limit[arm]).float() * control_dt_s
        self._ik = DifferentialIk(
            chain, self._start[arm], self._lower[arm], self._upper[arm], max_step
        )
        home = chain.forward(self._start.unsqueeze(0))
        self._home_position, self._home_rotation = home.position[0], home.rotation[0]
        self.palm_position = torch.zeros(num_envs, 3)
        self.palm_yaw = torch.zeros(num_envs)
        self.closure = torch.zeros(num_envs, 2)
        self.spread = torch.zeros(num_envs)
        self.target = torch.zeros(num_envs, len(names))
        self.reset()

    @property
    def start_position(self) -> Tensor:
        """[23] rad: where an episode starts, in the robot's joint order."""
        return self._start

    @property
    def intent_terms(self) -> tuple[Term, ...]:
        """What `intent` holds."""
        return self.config.intent_terms

    def set_difficulty(self, difficulty: float) -> None:
        """Nothing here depends on it."""

    def can_start(self, joint_positions: Tensor) -> Tensor:
        """[K] bool: robots may start at any [K, 23] rad."""
        return torch.ones(len(joint_positions), dtype=torch.bool)

    def reset(self, env_ids: Tensor | None = None, joint_positions: Tensor | None = None) -> None:
        """Puts the palm target and the hand back to the start.

        Args:
            env_ids: [K] int64 environments, None for all.
            joint_positions: [K, 23] rad, where the robots stand: no matter, an action moves palm
                and hand from where `start_position` has them, and the servos close the distance.
        """
        ids = slice(None) if env_ids is None else env_ids
        self.palm_position[ids] = self._home_position
        self.palm_yaw[ids] = 0.0
        self.closure[ids] = 0.0
        self.spread[ids] = 0.0
        self.target[ids] = self._start

    def decode(self, actions: Tensor) -> Tensor:
        """Advances one control period.

        Args:
            actions: [N, action_dim] float32; clamped to [-1, 1]. NaN counts as 0.

        Returns:
            [N, 23] rad joint position targets in the robot's joint order, also in `target`.
        """
        config, dt_s = self.config, self._dt_s
        full = torch.zeros(actions.shape[0], len(_ALL_ACTIONS))
        full[:, self._columns] = torch.nan_to_num(actions).clamp(-1.0, 1.0)
        self.palm_position += config.palm_speed_m_s * dt_s * full[:, 0:3]
        self.palm_position.clamp_(self._workspace[0], self._workspace[1])
        self.palm_yaw += config.yaw_rate_rad_s * dt_s * full[:, 3]
        self.palm_yaw.clamp_(-config.max_yaw_rad, config.max_yaw_rad)
        self.closure += config.closure_rate_per_s * dt_s * full[:, 4:6]
        self.closure.clamp_(0.0, 1.0)
        self.spread += config.spread_rate_per_s * dt_s * full[:, 6]
        self.spread.clamp_(-1.0, 1.0)
        rotation = rotation_about_z(self.palm_yaw) @ self._home_rotation
        self.target = self._ik.solve(self.target, self.palm_position, rotation)
        self._write_hand(self.target, self.closure, self.spread)
        torch.maximum(self.target, self._lower, out=self.target)
        torch.minimum(self.target, self._upper, out=self.target)
        return self.target

    def intent(self) -> Tensor:
        """[N, 7]: see `intent_terms`."""
        yaw, spread = self.palm_yaw.unsqueeze(1), self.spread.unsqueeze(1)
        return torch.cat((self.palm_position, yaw, self.closure, spread), dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `decode` depends on."""
        return {name: getattr(self, name).clone() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])

    def _start_position(self) -> Tensor:
        position = torch.zeros(1, len(self._lower))
        position[:, self._arm] = torch.tensor(ARM_PREGRASP)
        self._write_hand(position, torch.zeros(1, 2), torch.zeros(1))
        return position[0]

    def _write_hand(self, target: Tensor, closure: Tensor, spread: Tensor) -> None:
        config = self.config
        finger_open, finger_shut = (
            torch.tensor(posture) for posture in (config.finger_open_rad, config.finger_shut_rad)
        )
        finger = finger_open + (finger_shut - finger_open) * closure[:, 0:1]
        for name in ("index", "middle", "ring"):
            target[:, self._fingers[name]] = finger
        target[:, self._fingers["index"][0]] -= config.max_spread_rad * spread
        target[:, self._fingers["ring"][0]] += config.max_spread_rad * spread
        thumb_open, thumb_shut = (
            torch.tensor(posture) for posture in (config.thumb_open_rad, config.thumb_shut_rad)
        )
        target[:, self._fingers["thumb"]] = (
            thumb_open + (thumb_shut - thumb_open) * closure[:, 1:2]
        )


def rotation_about_z(angle: Tensor) -> Tensor:
    """[N, 3, 3] rotations by [N] rad about the z axis."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cosine, -sine, zero, sine, cosine, zero, zero, zero, one)
    return torch.stack(rows, dim=1).view(-1, 3, 3)
