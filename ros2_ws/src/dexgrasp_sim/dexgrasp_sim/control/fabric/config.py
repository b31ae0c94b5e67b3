"""Configuration of the fabric's action space: what an action means, and the limits it obeys."""

import math
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.fabric.fabric import FabricGains
from dexgrasp_sim.control.fabric.obstacles import SURROUNDINGS, Obstacle
from dexgrasp_sim.control.palm_velocity.decoder import chosen_actions
from dexgrasp_sim.robot.hand_pca import NUM_COMPONENTS
from dexgrasp_sim.robot.robot import FabricSpec, Robot
from dexgrasp_sim.schedules import NonNegativeRamp, Ramp
from dexgrasp_sim.specs import Term

ALL_ACTIONS = (
    "palm_x",
    "palm_y",
    "palm_z",
    "palm_euler_z",
    "palm_euler_y",
    "palm_euler_x",
    *(f"hand_{number}" for number in range(1, NUM_COMPONENTS + 1)),
)
Positive = Annotated[float, Field(gt=0)]
Vector3 = tuple[float, float, float]
Vector5 = tuple[float, float, float, float, float]
ArmVector = Annotated[tuple[Positive, ...], Field(min_length=1)]
Posture = Annotated[tuple[float, ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class MotionConfig:
    """Limits of the joint targets besides the URDF's position and velocity limits.

    Attributes:
        velocity_fraction: Of the URDF's velocity limits.
        arm_acceleration_rad_s2: Of the arm's joints; None: the robot's, as for the next three.
        arm_jerk_rad_s3: Of the arm's joints.
        hand_acceleration_rad_s2: Of each hand joint.
        hand_jerk_rad_s3: Of each hand joint.
    """

    velocity_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    arm_acceleration_rad_s2: ArmVector | None = None
    arm_jerk_rad_s3: ArmVector | None = None
    hand_acceleration_rad_s2: Positive | None = None
    hand_jerk_rad_s3: Positive | None = None

    def acceleration(self, robot: Robot) -> tuple[float, ...]:
        """[J] rad/s2; ValueError where a length is wrong, as for `jerk`."""
        return _limits(
            "arm_acceleration_rad_s2",
            self.arm_acceleration_rad_s2,
            self.hand_acceleration_rad_s2,
            robot.max_acceleration,
            robot,
        )

    def jerk(self, robot: Robot) -> tuple[float, ...]:
        """[J] rad/s3."""
        arm, hand = self.arm_jerk_rad_s3, self.hand_jerk_rad_s3
        return _limits("arm_jerk_rad_s3", arm, hand, robot.max_jerk, robot)


def _limits(
    name: str,
    arm: tuple[float, ...] | None,
    hand: float | None,
    own: tuple[float, ...],
    robot: Robot,
) -> tuple[float, ...]:
    arm = own[robot.arm] if arm is None else arm
    _check_length(f"motion.{name}", arm, len(robot.arm_joints))
    return (*arm, *(own[robot.hand] if hand is None else [hand] * len(robot.hand_joints)))


def _check_length(name: str, values: tuple[float, ...], joints: int) -> None:
    if len(values) != joints:
        raise ValueError(f"`{name}` has {len(values)} numbers for {joints} joints; give one each")


@dataclass(frozen=True, config=STRICT)
class FabricConfig:
    """Meaning of the action: goals of a geometric fabric, -1 to 1 over the ranges below.

    What is None is the robot's, see `robot_file.FabricEntry`.

    Attributes:
        kind: Tells this action space from the others.
        dimensions: Which of the eleven quantities the policy commands, in action order; the
            others stay at their value in the start posture. None: all.
        palm_min_m: Palm position at -1, base frame.
        palm_max_m: At 1.
        palm_euler_rad: Centre of the palm's orientation as ZYX Euler angles, stored z, y, x.
        palm_angle_rad: What an action of 1 adds to each (DEXTRAH).
        hand_min_rad: Principal components of the hand at -1.
        hand_max_rad: At 1.
        start_position_rad: [J], where an episode starts; None: the robot's `reset` posture.
        posture_rad: [J], what the fabric resolves redundancy to; None: the `relaxed` posture.
        time_scale: Fabric seconds per second. Speed limits hold in real time at any value; below
            1 they shrink with it, so that a motion is the same, only slower.
        fabric_step_s: Longest time step of the fabric, in its own time. Accelerations are below
            half the jerk limit times the step (see `MotionLimits`), so a finer step is slower.
        motion: Acceleration and jerk limits.
        obstacles: What no body sphere ever enters, besides the table.
        margin_m: Least gap between a body sphere and an obstacle.
        gains: Strength of the fabric's terms.
        damping_per_s: Damping of all joints; higher is slower. An episode keeps what it began
            with, and a robot gets that of the difficulty the policy was trained to.
        velocity_target_factor: Times the speed of the joint targets is the velocity target of the
            simulated servos. Robots get positions only: end at 0.
    """

    kind: Literal["fabric"] = "fabric"
    dimensions: tuple[str, ...] | None = None
    palm_min_m: Vector3 | None = None
    palm_max_m: Vector3 | None = None
    palm_euler_rad: Vector3 | None = None
    palm_angle_rad: Positive = 0.25 * math.pi
    hand_min_rad: Vector5 | None = None
    hand_max_rad: Vector5 | None = None
    start_position_rad: Posture | None = None
    posture_rad: Posture | None = None
    time_scale: Positive = 1.0
    fabric_step_s: Positive = 1.0 / 60.0
    motion: MotionConfig = MotionConfig()
    obstacles: tuple[Obstacle, ...] = SURROUNDINGS
    margin_m: Annotated[float, Field(ge=0)] = 0.001
    gains: FabricGains = FabricGains()
    damping_per_s: NonNegativeRamp = Ramp(10.0)
    velocity_target_factor: NonNegativeRamp = Ramp(0.0)

    def check(self, robot: Robot) -> None:
        """ValueError where the config does not fit the robot."""
        self.action_names(robot)
        self.ranges(robot)
        self.start_position(robot)
        self.posture(robot)
        self.motion.acceleration(robot)
        self.motion.jerk(robot)

    def action_names(self, robot: Robot) -> tuple[str, ...]:
        """What each action dimension commands; ValueError as for `ActionConfig`."""
        fabric_of(robot)
        return chosen_actions(self.dimensions, ALL_ACTIONS, robot)

    def intent_terms(self, robot: Robot) -> tuple[Term, ...]:
        """What `FabricDecoder.intent` holds."""
        return (
            Term("palm_goal_position", 3, "m", "base"),
            Term("palm_goal_axes_x_y", 6, "1", "base"),
            Term("hand_goal", NUM_COMPONENTS, "rad"),
            Term("joint_target", robot.num_joints, "rad"),
            Term("joint_target_velocity", robot.num_joints, "rad/s"),
        )

    def ranges(self, robot: Robot) -> "ActionRanges":
        """What actions of -1 and 1 mean on this robot; ValueError where a range is empty."""
        spec = fabric_of(robot)
        euler = spec.palm_euler_zyx_rad if self.palm_euler_rad is None else self.palm_euler_rad
        palm_low = self.palm_min_m or spec.palm_m[0]
        palm_high = self.palm_max_m or spec.palm_m[1]
        if any(low >= high for low, high in zip(palm_low, palm_high)):
            raise ValueError("`palm_min_m` must be below `palm_max_m` on every axis")
        hand_low, hand_high = self.hand_range_rad(robot)
        if any(low >= high for low, high in zip(hand_low, hand_high)):
            raise ValueError(f"`hand_min_rad` {hand_low} must be below `hand_max_rad` {hand_high}")
        angle = self.palm_angle_rad
        return ActionRanges(
            (*palm_low, *(value - angle for value in euler), *hand_low),
            (*palm_high, *(value + angle for value in euler), *hand_high),
        )

    def hand_range_rad(self, robot: Robot) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Hand components at actions of -1 and of 1."""
        hand = fabric_of(robot).hand_pca
        low = tuple(hand.lower.tolist()) if self.hand_min_rad is None else self.hand_min_rad
        high = tuple(hand.upper.tolist()) if self.hand_max_rad is None else self.hand_max_rad
        return low, high

    def start_position(self, robot: Robot) -> tuple[float, ...]:
        """[J] rad, where an episode starts; ValueError for a wrong length."""
        start = self.start_position_rad or robot.postures["reset"]
        _check_length("start_position_rad", start, robot.num_joints)
        return start

    def posture(self, robot: Robot) -> tuple[float, ...]:
        """[J] rad, what redundancy is resolved to; ValueError for a wrong length."""
        posture = self.posture_rad or robot.postures["relaxed"]
        _check_length("posture_rad", posture, robot.num_joints)
        return posture

    def steps(self, control_dt_s: float) -> int:
        """Fabric steps in a control period, each with targets for the joints."""
        # a period that is a whole number of steps must not become one more by rounding
        return max(1, math.ceil(self.time_scale * control_dt_s / self.fabric_step_s - 1e-6))


class ActionRanges(NamedTuple):
    """The eleven quantities at actions of -1 and of 1: palm m, Euler angles rad, hand rad."""

    low: tuple[float, ...]
    high: tuple[float, ...]


def fabric_of(robot: Robot) -> FabricSpec:
    """What the fabric must know of a robot; ValueError if its file has no `fabric`."""
    if robot.fabric is None:
        raise ValueError(
            f"{robot.path} has no `fabric`, so that actions cannot be of kind fabric; use kind "
            "velocity, or add it"
        )
    return robot.fabric
