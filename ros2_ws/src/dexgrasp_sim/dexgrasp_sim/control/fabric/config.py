"""Configuration of the fabric's action space: what an action means, and the limits it obeys."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.fabric.fabric import FabricGains
from dexgrasp_sim.control.fabric.obstacles import WORLD, Obstacle
from dexgrasp_sim.robot.hand_pca import load_hand_pca
from dexgrasp_sim.robot.kuka_allegro import FABRIC_DEFAULT_POSTURE, RESET_POSTURE
from dexgrasp_sim.schedules import NonNegativeRamp, Ramp
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

ALL_ACTIONS: tuple[FabricAction, ...] = FabricAction.__args__  # type: ignore[attr-defined]


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
        damping_per_s: Damping of all joints; higher is slower. An episode keeps what it began
            with, and a robot gets that of the difficulty the policy was trained to.
        velocity_target_factor: Times the speed of the joint targets is the velocity target of the
            simulated servos. Robots get positions only: end at 0.
    """

    kind: Literal["fabric"] = "fabric"
    dimensions: tuple[FabricAction, ...] = ALL_ACTIONS
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
    damping_per_s: NonNegativeRamp = Ramp(10.0)
    velocity_target_factor: NonNegativeRamp = Ramp(0.0)

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

    @property
    def intent_terms(self) -> tuple[Term, ...]:
        """What `FabricDecoder.intent` holds."""
        joints = len(RESET_POSTURE)
        return (
            Term("palm_goal_position", 3, "m", "base"),
            Term("palm_goal_axes_x_y", 6, "1", "base"),
            Term("hand_goal", 5, "rad"),
            Term("joint_target", joints, "rad"),
            Term("joint_target_velocity", joints, "rad/s"),
        )

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
