"""The safety filter that every joint command passes before it is sent."""

from dataclasses import dataclass as plain_dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.robot.robot import Robot

Positive = Annotated[float, Field(gt=0)]
Vector = NDArray[np.float64]

_CHANGED_RAD = 1e-5
"""A command that differs by less counts as unchanged: float32 rounding of a joint angle."""


@dataclass(frozen=True, config=STRICT)
class SafetyConfig:
    """Limits of what is sent to the robot, on top of those in its URDF.

    Attributes:
        limit_margin_rad: Distance kept from the URDF position limits.
        velocity_scale: Share of the URDF velocity limits that may be commanded.
        full_speed_time_s: Time from rest to the URDF velocity limit; it sets the acceleration
            limit (0.1 s gives the KUKA arm 17 to 31 rad/s^2 and the hand 63 rad/s^2).
        max_arm_tracking_rad: Largest distance of an arm command from the measured position.
        max_hand_tracking_rad: The same for the hand, where the distance is the grip force.
    """

    limit_margin_rad: Annotated[float, Field(ge=0)] = 0.0
    velocity_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    full_speed_time_s: Positive = 0.1
    max_arm_tracking_rad: Positive = 0.35
    max_hand_tracking_rad: Positive = 1.6


@plain_dataclass(frozen=True)
class SafeCommand:
    """A command after the filter.

    Attributes:
        position: [J] rad in the robot's joint order.
        clamped: [J] bool, True where the target was changed.
        reasons: Names of the rules that changed a target, in the order in which they are applied:
            `not_finite`, `position_limit`, `tracking`, `rate_limit`.
    """

    position: Vector
    clamped: NDArray[np.bool_]
    reasons: tuple[str, ...]


class SafetyFilter:
    """Keeps position, velocity and acceleration of the command within limits for any input.

    The speed is also limited so that the command can always brake before a position limit: with
    acceleration a and period T, v must satisfy v T + v^2 / (2 a) <= the remaining distance.
    """

    def __init__(self, robot: Robot, config: SafetyConfig, control_dt_s: float) -> None:
        """Raises ValueError if the margin leaves a joint no range."""
        joints = [robot.joints[name] for name in robot.joint_names]
        self._lower = np.array([joint.lower for joint in joints]) + config.limit_margin_rad
        self._upper = np.array([joint.upper for joint in joints]) - config.limit_margin_rad
        if np.any(self._lower >= self._upper):
            raise ValueError(
                f"limit_margin_rad = {config.limit_margin_rad} leaves a joint no range; lower it"
            )
        speed = np.array([joint.velocity for joint in joints])
        self._max_velocity = config.velocity_scale * speed
        self._max_acceleration = speed / config.full_speed_time_s
        self._max_tracking = np.full(len(joints), config.max_hand_tracking_rad)
        self._max_tracking[robot.arm] = config.max_arm_tracking_rad
        self._dt_s = control_dt_s
        self._position: Vector = np.zeros(len(joints))
        self._velocity: Vector = np.zeros(len(joints))

    @property
    def position(self) -> Vector:
        """[J] rad, the command sent last."""
        return self._position.copy()

    def reset(self, measured: Vector) -> None:
        """Starts at rest from the measured position, so that the first command does not jump.

        Args:
            measured: [J] rad; a joint outside its limits may only move inward.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.all(np.isfinite(measured)):
            raise ValueError(f"measured joint positions {measured} are not finite")
        self._position = np.array(measured, dtype=np.float64)
        self._velocity = np.zeros_like(self._position)

    def filter(self, target: Vector, measured: Vector) -> SafeCommand:
        """Returns the command to send now and stores it as sent.

        Args:
            target: [J] rad, joint positions wanted by the policy.
            measured: [J] rad, measured joint positions.
        """
        if not (np.all(np.isfinite(target)) and np.all(np.isfinite(measured))):
            return self._brake()
        limited = np.clip(target, self._lower, self._upper)
        tracked = np.clip(limited, measured - self._max_tracking, measured + self._max_tracking)
        wanted = np.clip(tracked, self._lower, self._upper)
        sent = self._move(self._rate_limited(wanted))
        rules = {
            "position_limit": limited - target,
            "tracking": wanted - limited,
            "rate_limit": sent - wanted,
        }
        reasons = tuple(n for n, change in rules.items() if np.any(np.abs(change) > _CHANGED_RAD))
        return SafeCommand(sent.copy(), np.abs(sent - target) > _CHANGED_RAD, reasons)

    def _brake(self) -> SafeCommand:
        sent = self._move(self._rate_limited(self._position))
        return SafeCommand(sent.copy(), np.ones(len(sent), dtype=bool), ("not_finite",))

    def _move(self, velocity: Vector) -> Vector:
        self._velocity = velocity
        self._position = self._position + velocity * self._dt_s
        return self._position

    def _rate_limited(self, wanted: Vector) -> Vector:
        """The velocity [J] rad/s of this period towards `wanted`, within the limits."""
        change = self._max_acceleration * self._dt_s
        slowest, fastest = self._velocity - change, self._velocity + change
        distance = wanted - self._position
        direct = distance / self._dt_s
        # A target that is reachable in this period is reached exactly, because it may keep moving.
        # A farther one is approached at a speed that still allows stopping there.
        braking = np.sign(distance) * self._stoppable(np.abs(distance))
        reachable = (slowest <= direct) & (direct <= fastest)
        velocity = np.clip(np.where(reachable, direct, braking), slowest, fastest)
        velocity = np.clip(velocity, -self._max_velocity, self._max_velocity)
        return np.clip(
            velocity,
            -self._stoppable(self._position - self._lower),
            self._stoppable(self._upper - self._position),
        )

    def _stoppable(self, distance: Vector) -> Vector:
        """Largest speed that still stops within `distance`: v T + v^2 / (2 a) = distance."""
        a, dt_s = self._max_acceleration, self._dt_s
        return a * (np.sqrt(dt_s**2 + 2.0 * np.maximum(distance, 0.0) / a) - dt_s)
