"""The safety filter that every joint command passes before it is sent."""

from collections.abc import Iterator
from dataclasses import dataclass as plain_dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.control.motion.clearance import Cell, Clearances
from dexgrasp_sim.config import STRICT
from dexgrasp_sim.robot.robot import Robot

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Vector = NDArray[np.float64]
Vector3 = tuple[float, float, float]

_CHANGED_RAD = 1e-5
"""A command that differs by less counts as unchanged: float32 rounding of a joint angle."""
_ROUNDING_M = 1e-9
_ROUNDING = 1e-3
"""Targets that use up the jerk limit exceed it by this share, because they are float32."""
_TURNS = 4
"""How often a velocity is turned away from what it would run into."""
_SHARES = (0.5, 0.0)
"""Shares of the wanted velocity, the rest being braking, that are tried after that."""
_OVERSHOOT_M = 1e-4
_PROBE_RAD = 1e-6


@dataclass(frozen=True, config=STRICT)
class SafetyConfig:
    """Limits of what is sent to the robot, on top of those in its URDF.

    Attributes:
        limit_margin_rad: Distance kept from the URDF position limits.
        velocity_scale: Share of the URDF velocity limits that may be commanded at most.
        full_speed_time_s: Time from rest to the URDF velocity limit; it sets the acceleration
            limit (0.1 s gives the KUKA arm 17 to 31 rad/s^2 and the hand 63 rad/s^2).
        jerk_scale: Share of the robot's jerk limits that may be commanded.
        max_arm_tracking_rad: Largest distance of an arm command from the measured position.
        max_hand_tracking_rad: The same for the hand, where the distance is the grip force.
        max_arm_effort: Share of the URDF effort limits above which the arm stops, where the
            effort is measured.
        max_hand_effort: The same for the hand, whose joints then close no further.
        obstacle_gap_m: Least gap between a body sphere and an obstacle, see `Clearances`. The
            spheres of the fingertips are 8 mm larger than the fingertips, which touch the table
            when they grasp what is flat.
        self_gap_m: Least gap between the hand and the upper arm.
        workspace_min_m: Lower corner of the box in which palm and fingertips stay, base frame;
            None: none.
        workspace_max_m: Upper corner.
        blend_s: Time in which a policy's targets take over from where the robot stands.
    """

    limit_margin_rad: Annotated[float, Field(ge=0)] = 0.0
    velocity_scale: Share = 1.0
    full_speed_time_s: Positive = 0.1
    jerk_scale: Share = 1.0
    max_arm_tracking_rad: Positive = 0.35
    max_hand_tracking_rad: Positive = 1.6
    max_arm_effort: Positive = 0.8
    max_hand_effort: Positive = 1.5
    obstacle_gap_m: float = -0.012
    self_gap_m: float = 0.0
    workspace_min_m: Vector3 | None = None
    workspace_max_m: Vector3 | None = None
    blend_s: Positive = 0.5

    def workspace(self) -> tuple[Vector3, Vector3] | None:
        """Both corners; None where none is given.

        Raises:
            ValueError: Only one corner is given, or the box is empty.
        """
        lower, upper = self.workspace_min_m, self.workspace_max_m
        if lower is None and upper is None:
            return None
        if lower is None or upper is None or not all(a < b for a, b in zip(lower, upper)):
            raise ValueError(
                f"workspace_min_m {lower} must be below workspace_max_m {upper} on every axis; "
                "give both"
            )
        return lower, upper


@plain_dataclass(frozen=True)
class SafeCommand:
    """A command after the filter: what is really sent.

    Attributes:
        position: [J] rad in the robot's joint order.
        clamped: [J] bool, True where the target was changed.
        reasons: Names of the rules that changed a target, in the order in which they are applied:
            `not_finite`, `position_limit`, `effort`, `tracking`, `rate_limit`, `clearance`.
        detail: What a clearance is between; "" without that rule.
    """

    position: Vector
    clamped: NDArray[np.bool_]
    reasons: tuple[str, ...]
    detail: str = ""


class SafetyFilter:
    """Keeps the command within limits for any input.

    Position, velocity and acceleration: the speed is also limited so that the command can always
    brake before a position limit: with acceleration a and period T, v must satisfy
    v T + v^2 / (2 a) <= the remaining distance. Jerk: accelerations within +-min(acceleration
    limit, jerk limit * T / 2) differ by no more than jerk limit * T.

    Clearances: a state is safe if the robot, braking with every joint as hard as it may, keeps all
    distances of `Clearances` at every period until it rests. Each period takes a velocity that
    leads to a safe state, or brakes, which leads from a safe state to a safe state. So no command
    is ever sent at which a distance is below zero. The robot may begin where one is: then that
    distance must not become less than it was.
    """

    def __init__(
        self,
        robot: Robot,
        config: SafetyConfig,
        control_dt_s: float,
        cell: Cell = Cell(),  # noqa: B008 - a constant
    ) -> None:
        """Raises ValueError if the margin leaves a joint no range."""
        joints = [robot.joints[name] for name in robot.joint_names]
        self._hard = (np.array(robot.lower), np.array(robot.upper))
        self._lower = self._hard[0] + config.limit_margin_rad
        self._upper = self._hard[1] - config.limit_margin_rad
        if np.any(self._lower >= self._upper):
            raise ValueError(
                f"limit_margin_rad = {config.limit_margin_rad} leaves a joint no range; lower it"
            )
        self._config, self._dt_s, self._arm = config, control_dt_s, robot.arm
        speed = np.array([joint.velocity for joint in joints])
        jerk = config.jerk_scale * np.array(robot.max_jerk) * (1 + _ROUNDING)
        self._fastest = config.velocity_scale * speed
        self._max_acceleration = np.minimum(
            speed / config.full_speed_time_s, 0.5 * jerk * control_dt_s
        )
        self._max_tracking = np.full(len(joints), config.max_hand_tracking_rad)
        self._max_tracking[robot.arm] = config.max_arm_tracking_rad
        self._max_effort = np.array([joint.effort for joint in joints]) * config.max_hand_effort
        self._max_effort[robot.arm] *= config.max_arm_effort / config.max_hand_effort
        self.clearances = Clearances(robot, cell, config.obstacle_gap_m, config.self_gap_m)
        self._speed_scale = 1.0
        self._max_velocity = self._fastest.copy()
        self._offset: Vector = np.zeros(len(joints))
        self._blended_s = np.inf
        self._position: Vector = np.clip(np.zeros(len(joints)), *self._hard)
        self._velocity: Vector = np.zeros(len(joints))
        self._least = self._clearances_at(self._position)

    @property
    def position(self) -> Vector:
        """[J] rad, the command sent last."""
        return self._position.copy()

    @property
    def at_rest(self) -> bool:
        """Whether the command stands still."""
        return not self._velocity.any()

    @property
    def speed_scale(self) -> float:
        """Share of `velocity_scale` that may be commanded now."""
        return self._speed_scale

    @speed_scale.setter
    def speed_scale(self, scale: float) -> None:
        if not 0 < scale <= 1:
            raise ValueError(f"speed_scale = {scale}: must be above 0 and at most 1")
        self._speed_scale = scale

    def reset(self, measured: Vector) -> None:
        """Starts at rest from the measured position, so that the first command does not jump.

        Args:
            measured: [J] rad; a joint outside its limits starts on the limit, one within the
                margin may only move inward.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.all(np.isfinite(measured)):
            raise ValueError(f"measured joint positions {measured} are not finite")
        self._position = np.clip(np.array(measured, dtype=np.float64), *self._hard)
        self._velocity = np.zeros_like(self._position)
        self._offset, self._blended_s = np.zeros_like(self._position), np.inf
        self._least = self._clearances_at(self._position)

    def blend_from(self, target: Vector) -> None:
        """Lets the difference of the present command from `target` [J] rad fade in `blend_s`.

        Call this where another source of targets takes over whose first target is this.
        """
        self._offset, self._blended_s = self._position - target, 0.0

    def filter(
        self, target: Vector, measured: Vector, effort: Vector | None = None
    ) -> SafeCommand:
        """Returns the command to send now and stores it as sent.

        Args:
            target: [J] rad, joint positions wanted by the policy.
            measured: [J] rad, measured joint positions.
            effort: [J] N m, measured; NaN or None where it is not.
        """
        if not (np.all(np.isfinite(target)) and np.all(np.isfinite(measured))):
            return self._sent(self._braking(), np.full(len(target), np.nan), {"not_finite": True})
        shifted = target + self._fading_offset()
        limited = np.clip(shifted, self._lower, self._upper)
        eased = self._eased(limited, measured, effort)
        tracked = np.clip(eased, measured - self._max_tracking, measured + self._max_tracking)
        wanted = np.clip(tracked, self._lower, self._upper)
        velocity, between = self._kept_clear(self._rate_limited(wanted))
        sent = self._position + velocity * self._dt_s
        rules = {
            "position_limit": _differs(limited, shifted),
            "effort": _differs(eased, limited),
            "tracking": _differs(wanted, eased),
            "rate_limit": _differs(sent, wanted) and not between,
            "clearance": bool(between),
        }
        return self._sent(velocity, target, rules, between)

    def brake(self) -> SafeCommand:
        """The command that slows down as hard as the limits allow; needs no measurement."""
        return self._sent(self._braking(), self._position, {})

    def _sent(
        self, velocity: Vector, target: Vector, rules: dict[str, bool], detail: str = ""
    ) -> SafeCommand:
        self._velocity = velocity
        self._position = np.clip(self._position + velocity * self._dt_s, *self._hard)
        clamped = ~(np.abs(self._position - target) <= _CHANGED_RAD)
        reasons = tuple(name for name, applied in rules.items() if applied)
        self._slow_down()
        return SafeCommand(self._position.copy(), clamped, reasons, detail)

    def _slow_down(self) -> None:
        """Lowers the speed limit no faster than joints can brake, raises it at once."""
        wanted = self._speed_scale * self._fastest
        change = self._max_acceleration * self._dt_s
        self._max_velocity = np.maximum(wanted, self._max_velocity - change)

    def _fading_offset(self) -> Vector:
        self._blended_s += self._dt_s
        x = min(1.0, self._blended_s / self._config.blend_s)
        return self._offset * (1.0 - (10 * x**3 - 15 * x**4 + 6 * x**5))

    def _eased(self, target: Vector, measured: Vector, effort: Vector | None) -> Vector:
        """Where a joint's torque is too high, its target may only go toward the measured position;
        where an arm joint's is, so may all of the arm.
        """
        if effort is None:
            return target
        with np.errstate(invalid="ignore"):
            overloaded = np.abs(effort) > self._max_effort
        if overloaded[self._arm].any():
            overloaded[self._arm] = True
        if not overloaded.any():
            return target
        near, far = np.minimum(measured, self._position), np.maximum(measured, self._position)
        return np.where(overloaded, np.clip(target, near, far), target)

    def _braking(self) -> Vector:
        change = self._max_acceleration * self._dt_s
        return self._velocity - np.clip(self._velocity, -change, change)

    def _rate_limited(self, wanted: Vector) -> Vector:
        """The velocity [J] rad/s of this period towards `wanted`, within the limits."""
        change = self._max_acceleration * self._dt_s
        distance = wanted - self._position
        direct = distance / self._dt_s
        # A target that is reachable in this period is reached exactly, because it may keep moving.
        # A farther one is approached at a speed that still allows stopping there.
        braking = np.sign(distance) * self._stoppable(np.abs(distance))
        reachable = np.abs(direct - self._velocity) <= change
        return self._feasible(np.where(reachable, direct, braking))

    def _feasible(self, velocity: Vector) -> Vector:
        """The velocity brought within the limits of acceleration, speed and position."""
        change = self._max_acceleration * self._dt_s
        velocity = np.clip(velocity, self._velocity - change, self._velocity + change)
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

    def _kept_clear(self, wanted: Vector) -> tuple[Vector, str]:
        """A velocity near the wanted one that leads to a safe state, and what is in the way."""
        between = ""
        for velocity in self._candidates(wanted):
            path = self._braking_path(velocity)
            lack = self._least - self.clearances.of(path)  # [L, C]
            if not lack.size or lack.max() <= _ROUNDING_M:
                return velocity, between
            self._blocked = self._hindrance(path, lack)
            between = between or self._blocked.between
        return self._braking(), between

    def _candidates(self, wanted: Vector) -> Iterator[Vector]:
        velocity = wanted
        yield velocity
        for _ in range(_TURNS):
            velocity = self._feasible(velocity + self._blocked.turn)
            yield velocity
        braking = self._braking()
        for share in _SHARES:
            yield braking + share * (velocity - braking)

    def _hindrance(self, path: Vector, lack: Vector) -> "_Hindrance":
        """What is violated most along a path [L, J], and the change of velocity that avoids it."""
        step, worst = np.unravel_index(int(np.nan_to_num(lack, nan=np.inf).argmax()), lack.shape)
        at = path[step]
        probes = at + np.vstack((np.zeros(len(at)), _PROBE_RAD * np.eye(len(at))))
        values = self.clearances.of(probes)[:, worst]
        gradient = (values[1:] - values[0]) / _PROBE_RAD  # [J] m/rad
        steepness = float(gradient @ gradient) * self._dt_s * (step + 1)
        missing = float(lack[step, worst]) + _OVERSHOOT_M
        turn = gradient * missing / steepness if steepness > 0 else np.zeros_like(gradient)
        return _Hindrance(self.clearances.names[worst], turn)

    def _braking_path(self, velocity: Vector) -> Vector:
        """[L, J] rad: the commands of a period at this velocity and of those that brake then."""
        change = self._max_acceleration * self._dt_s
        position, path = self._position, []
        while True:
            position = position + velocity * self._dt_s
            path.append(position)
            if not velocity.any():
                return np.array(path)
            velocity = velocity - np.clip(velocity, -change, change)

    def _clearances_at(self, position: Vector) -> Vector:
        """[C] m: what each clearance must stay above, zero or what it is now."""
        return np.minimum(0.0, self.clearances.of(position[np.newaxis])[0])


@plain_dataclass(frozen=True)
class _Hindrance:
    """What is in the way: its name, and a change of velocity [J] rad/s away from it."""

    between: str
    turn: Vector


def _differs(first: Vector, second: Vector) -> bool:
    return bool((np.abs(first - second) > _CHANGED_RAD).any())
