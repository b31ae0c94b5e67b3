"""Policy action to joint targets by a geometric fabric: palm pose and hand posture as goals."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.fabric import Fabric, FabricGains, Goal
from dexgrasp_sim.control.fabric_world import WORLD, Obstacle
from dexgrasp_sim.control.motion_limits import MotionLimits
from dexgrasp_sim.robot.hand_pca import load_hand_pca
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.kuka_allegro import (
    FABRIC_DEFAULT_POSTURE,
    HAND_JOINTS,
    PALM,
    RESET_POSTURE,
)
from dexgrasp_sim.robot.rotation import matrix_to_zyx_euler, zyx_euler_to_matrix
from dexgrasp_sim.robot.urdf import RobotModel
from dexgrasp_sim.specs import Term

FabricAction = Literal[
    "palm_x",
    "palm_y",
    "palm_z",
    "palm_euler_z",
    "palm_euler_y",
    "palm_euler_x",
    "hand_1",
    "hand_2",
    "hand_3",
    "hand_4",
    "hand_5",
]
Positive = Annotated[float, Field(gt=0)]
Vector3 = tuple[float, float, float]
Vector5 = tuple[float, float, float, float, float]
ArmVector = tuple[Positive, Positive, Positive, Positive, Positive, Positive, Positive]
Posture = Annotated[tuple[float, ...], Field(min_length=23, max_length=23)]

_ALL_ACTIONS: tuple[FabricAction, ...] = FabricAction.__args__  # type: ignore[attr-defined]
_STATE = ("goal", "target", "fabric_velocity")
_MAX_BEYOND_LIMIT_RAD = 0.05
"""A start this far beyond a joint limit is moved onto it, since calibration is not exact."""


@dataclass(frozen=True, config=STRICT)
class MotionConfig:
    """Limits of the joint targets besides the URDF's position and velocity limits (DEXTRAH).

    Attributes:
        velocity_fraction: Of the URDF's velocity limits.
        arm_acceleration_rad_s2: Of joints 1 to 7.
        arm_jerk_rad_s3: Of joints 1 to 7.
        hand_acceleration_rad_s2: Of each hand joint.
        hand_jerk_rad_s3: Of each hand joint.
    """

    velocity_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    arm_acceleration_rad_s2: ArmVector = (7.5, 7.5, 10.0, 10.0, 10.0, 20.0, 20.0)
    arm_jerk_rad_s3: ArmVector = (3750.0, 3750.0, 5000.0, 5000.0, 5000.0, 10000.0, 10000.0)
    hand_acceleration_rad_s2: Positive = 22.5
    hand_jerk_rad_s3: Positive = 2250.0


@dataclass(frozen=True, config=STRICT)
class FabricConfig:
    """Meaning of the action: goals of a geometric fabric, -1 to 1 over the ranges below.

    Attributes:
        kind: Tells this action space from the others.
        dimensions: Which of the eleven quantities the policy commands, in action order; the
            others stay at their value in the start posture.
        palm_min_m: Palm position at -1, base frame (DEXTRAH, as the ranges below).
        palm_max_m: At 1.
        palm_euler_rad: Centre of the palm's orientation as ZYX Euler angles, stored z, y, x.
        palm_angle_rad: What an action of 1 adds to each.
        hand_min_rad: Principal components of the hand at -1; None: the range of `load_hand_pca`.
        hand_max_rad: At 1.
        start_position_rad: Where an episode starts, in the robot's joint order.
        posture_rad: What the fabric resolves redundancy to.
        time_scale: Fabric seconds per second. Speed limits hold in real time at any value; below
            1 they shrink with it, so that a motion is the same, only slower.
        fabric_step_s: Longest time step of the fabric, in its own time. Accelerations are below
            half the jerk limit times the step (see `MotionLimits`), so a finer step is slower.
        motion: Acceleration and jerk limits.
        obstacles: What no body sphere ever enters.
        margin_m: Least gap between a body sphere and an obstacle.
        gains: Strength of the fabric's terms.
    """

    kind: Literal["fabric"] = "fabric"
    dimensions: tuple[FabricAction, ...] = _ALL_ACTIONS
    palm_min_m: Vector3 = (-1.2, -0.7, 0.0)
    palm_max_m: Vector3 = (0.0, 0.7, 1.0)
    palm_euler_rad: Vector3 = (-0.75 * math.pi, 0.0, math.pi)
    palm_angle_rad: Positive = 0.25 * math.pi
    hand_min_rad: Vector5 | None = None
    hand_max_rad: Vector5 | None = None
    start_position_rad: Posture = RESET_POSTURE
    posture_rad: Posture = FABRIC_DEFAULT_POSTURE
    time_scale: Positive = 1.0
    fabric_step_s: Positive = 1.0 / 60.0
    motion: MotionConfig = MotionConfig()
    obstacles: Annotated[tuple[Obstacle, ...], Field(min_length=1)] = WORLD
    margin_m: Annotated[float, Field(ge=0)] = 0.001
    gains: FabricGains = FabricGains()

    @model_validator(mode="after")
    def _check(self) -> "FabricConfig":
        if not self.dimensions or len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("`dimensions` must name at least one quantity, each once")
        if any(lo >= hi for lo, hi in zip(self.palm_min_m, self.palm_max_m)):
            raise ValueError("`palm_min_m` must be below `palm_max_m` on every axis")
        low, high = self.hand_range_rad()
        if any(lo >= hi for lo, hi in zip(low, high)):
            raise ValueError(f"`hand_min_rad` {low} must be below `hand_max_rad` {high}")
        return self

    def hand_range_rad(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Hand components at actions of -1 and of 1."""
        hand = load_hand_pca()
        low = tuple(hand.lower.tolist()) if self.hand_min_rad is None else self.hand_min_rad
        high = tuple(hand.upper.tolist()) if self.hand_max_rad is None else self.hand_max_rad
        return low, high

    def steps(self, control_dt_s: float) -> int:
        """Fabric steps in a control period."""
        # a period that is a whole number of steps must not become one more by rounding
        return max(1, math.ceil(self.time_scale * control_dt_s / self.fabric_step_s - 1e-6))


class FabricDecoder:
    """Moves N robots toward the goals that actions set; see `Decoder`.

    The joint targets, taken at every fabric step (`path`), keep the URDF's position and velocity
    limits and the acceleration and jerk limits of `MotionConfig` whatever the actions are, and no
    body sphere comes nearer than `margin_m` to an obstacle (`MotionLimits`, `BrakingGuard`).

    Attributes:
        action_names: The commanded dimensions.
        action_dim: Their number.
        intent_terms: What `intent` holds.
        goal: [N, 11], present value of all dimensions: palm position in m and ZYX Euler angles in
            rad, base frame, then hand components in rad.
        target: [N, 23] rad, present joint targets.
        path: [S, N, 23] rad, the targets at the S fabric steps of the last period; the last of
            them is `target`.
        fabric_velocity: [N, 23] rad per fabric second.
    """

    def __init__(
        self,
        config: FabricConfig,
        robot: RobotModel,
        num_envs: int,
        control_dt_s: float,
        device: torch.device | str = "cpu",
    ) -> None:
        """Prepares the fabric and starts all environments at `start_position`.

        Raises:
            ValueError: The start posture breaks a joint limit or is in an obstacle.
        """
        self.config = config
        self.action_names: tuple[FabricAction, ...] = config.dimensions
        self.action_dim = len(config.dimensions)
        self._device = torch.device(device)
        self._columns = [_ALL_ACTIONS.index(name) for name in config.dimensions]
        self._steps = config.steps(control_dt_s)
        hand = load_hand_pca()
        self._hand_axes = hand.axes.to(self._device)
        self._joint_names = robot.joint_names
        self._hand = robot.joint_indices(HAND_JOINTS)
        self._center, self._half_range = self._ranges()
        self._limits = self._motion_limits(robot, control_dt_s)
        self._fabric = Fabric(
            config.gains,
            robot,
            self._hand_axes,
            self._tensor(config.posture_rad),
            config.obstacles,
            config.margin_m,
            self._limits,
        )
        self._lower, self._upper = self._tensor(robot.lower), self._tensor(robot.upper)
        self._palm = Kinematics(robot, [PALM], self._device)
        self._start = self._tensor(config.start_position_rad)
        joints = robot.num_joints
        self.goal = self._tensor(torch.zeros(num_envs, len(_ALL_ACTIONS)))
        self.target = self._tensor(torch.zeros(num_envs, joints))
        self.fabric_velocity = torch.zeros_like(self.target)
        self.path = self.target[None]
        self.intent_terms = (
            Term("palm_goal_position", 3, "m", "base"),
            Term("palm_goal_axes_x_y", 6, "1", "base"),
            Term("hand_goal", 5, "rad"),
            Term("joint_target", joints, "rad"),
            Term("joint_target_velocity", joints, "rad/s"),
        )
        self.reset()

    @property
    def start_position(self) -> Tensor:
        """[23] rad: where an episode starts, in the robot's joint order."""
        return self._start

    @property
    def velocity(self) -> Tensor:
        """[N, 23] rad/s, at which the joint targets move now."""
        return self.config.time_scale * self.fabric_velocity

    def gap(self, joint_positions: Tensor) -> Tensor:
        """Least gap [K] in m, less the margin, of a body sphere to a box at [K, 23] rad.

        `reset` takes no posture where it is below zero.
        """
        return self._fabric.gaps(joint_positions).amin(dim=1)

    def reset(self, env_ids: Tensor | None = None, joint_positions: Tensor | None = None) -> None:
        """Restarts at rest, with the place where the robot is as goal.

        Args:
            env_ids: [K] int64 environments, None for all.
            joint_positions: [K, 23] rad, where the robots stand, None for `start_position`.

        Raises:
            ValueError: A posture is in an obstacle, not finite, or more than 0.05 rad beyond a
                joint limit; less is moved onto the limit.
        """
        ids = torch.arange(len(self.target)) if env_ids is None else env_ids
        ids = ids.to(self._device)
        if not len(ids):
            return
        given = self._start.expand(len(ids), -1) if joint_positions is None else joint_positions
        position = self._inside(given.to(self.target))
        self.target[ids] = position
        self.fabric_velocity[ids] = 0.0
        self.path = self.target[None].clone()
        palm = self._palm.forward(position)
        self.goal[ids, :3] = palm.position[:, 0]
        self.goal[ids, 3:6] = self._near_center(matrix_to_zyx_euler(palm.rotation[:, 0]))
        self.goal[ids, 6:] = position[:, self._hand] @ self._hand_axes.mT

    def decode(self, actions: Tensor) -> Tensor:
        """Advances one control period.

        Args:
            actions: [N, action_dim] float32; clamped to [-1, 1]. NaN leaves that goal as it is.

        Returns:
            [N, 23] rad joint position targets in the robot's joint order, also in `target`.
        """
        wanted = actions.detach().to(self.target).clamp(-1.0, 1.0)
        columns = self._columns
        scaled = self._center[columns] + self._half_range[columns] * wanted
        kept = self.goal[:, columns]
        self.goal[:, columns] = torch.where(torch.isnan(scaled), kept, scaled)
        rotation = zyx_euler_to_matrix(self.goal[:, 3:6])
        goal = Goal(self._fabric.palm_points(self.goal[:, :3], rotation), self.goal[:, 6:])
        position, velocity = self.target, self.fabric_velocity
        path = []
        for _ in range(self._steps):
            position, velocity = self._fabric.step(position, velocity, goal)
            path.append(position)
        self.target, self.fabric_velocity, self.path = position, velocity, torch.stack(path)
        return self.target

    def intent(self) -> Tensor:
        """[N, 60]: see `intent_terms`."""
        axes = zyx_euler_to_matrix(self.goal[:, 3:6])[:, :, :2].mT.flatten(1)
        parts = (self.goal[:, :3], axes, self.goal[:, 6:], self.target, self.velocity)
        return torch.cat(parts, dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `decode` depends on."""
        return {name: getattr(self, name).clone() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        for name in _STATE:
            setattr(self, name, state[name].to(self._device).clone())
        self.path = self.target[None].clone()

    def _ranges(self) -> tuple[Tensor, Tensor]:
        """Centre and half width [11] of the eleven quantities."""
        config, (low, high) = self.config, self.config.hand_range_rad()
        euler, angle = config.palm_euler_rad, config.palm_angle_rad
        lower = self._tensor((*config.palm_min_m, *(value - angle for value in euler), *low))
        upper = self._tensor((*config.palm_max_m, *(value + angle for value in euler), *high))
        return 0.5 * (lower + upper), 0.5 * (upper - lower)

    def _near_center(self, euler: Tensor) -> Tensor:
        """The angles [K, 3] less whole turns, within half a turn of the range's centre."""
        center = self._center[3:6]
        return center + torch.remainder(euler - center + math.pi, 2.0 * math.pi) - math.pi

    def _motion_limits(self, robot: RobotModel, control_dt_s: float) -> MotionLimits:
        """The limits in fabric time, where a second lasts 1 / time_scale seconds."""
        motion, hand = self.config.motion, len(HAND_JOINTS)
        scale = max(1.0, self.config.time_scale)
        acceleration = (*motion.arm_acceleration_rad_s2, *[motion.hand_acceleration_rad_s2] * hand)
        jerk = (*motion.arm_jerk_rad_s3, *[motion.hand_jerk_rad_s3] * hand)
        return MotionLimits(
            self._tensor(robot.lower),
            self._tensor(robot.upper),
            self._tensor(robot.velocity_limit) * motion.velocity_fraction / scale,
            self._tensor(acceleration) / scale**2,
            self._tensor(jerk) / scale**3,
            self.config.time_scale * control_dt_s / self._steps,
        )

    def _inside(self, position: Tensor) -> Tensor:
        """The posture [K, 23] within the joint limits; see `reset` for the errors."""
        inside = torch.minimum(torch.maximum(position, self._lower), self._upper)
        beyond = (position - inside).abs().amax(dim=0)
        if not torch.all(beyond <= _MAX_BEYOND_LIMIT_RAD):
            joint = int(beyond.nan_to_num(torch.inf).argmax())
            raise ValueError(
                f"{self._joint_names[joint]} starts {beyond[joint]:.3f} rad beyond its limit; "
                f"{_MAX_BEYOND_LIMIT_RAD} is allowed: move it back, or correct its zero"
            )
        gap, box = self._fabric.gaps(inside).amin(dim=0).min(dim=0)
        if gap < 0.0:
            name = self.config.obstacles[int(box)].name
            raise ValueError(
                f"the start posture lacks {-1e3 * gap.item():.1f} mm of gap to the obstacle "
                f"{name!r}: move the robot away from it, or correct `obstacles` and `margin_m`"
            )
        return inside

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(values).to(self._device, torch.float32)
