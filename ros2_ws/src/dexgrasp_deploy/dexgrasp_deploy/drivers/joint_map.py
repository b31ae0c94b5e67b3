"""The joints of another driver by the names, signs and zeros of the robot's URDF."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import JointSample
from dexgrasp_deploy.drivers.joint_config import JointTopicsConfig
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import Robot

Vector = NDArray[np.float64]

_FULL_TURN_RAD = 2 * np.pi
_BEYOND_LIMIT_RAD = 0.1
"""A joint that is measured further outside its limits has another unit, zero or sign."""


class JointStateError(ValueError):
    """A message with joints cannot be used; the text says why."""


class JointMap:
    """Converts measurements and commands; joints are found by name."""

    def __init__(self, config: JointTopicsConfig, own: Sequence[str], kind: str) -> None:
        """Args:
        config: Names, signs and offsets.
        own: The robot's joints that the driver moves.
        kind: "arm" or "hand", for messages.

        Raises:
            ConfigError: The names are not those of the robot, or none are given.
        """
        if not config.joint_names:
            raise ConfigError(
                f"{kind}.joint_names is empty; give the driver's joint names in the order of its "
                "commands"
            )
        self.joint_names = config.joint_names
        self.urdf_names = config.urdf_names or config.joint_names
        if sorted(self.urdf_names) != sorted(own):
            wrong = sorted(set(self.urdf_names) ^ set(own))
            raise ConfigError(
                f"{kind}.urdf_names and the robot's {kind} differ in {', '.join(wrong)}; the "
                f"robot has {', '.join(own)}"
            )
        count = len(self.joint_names)
        self._sign = np.array(config.sign or [1] * count, dtype=np.float64)
        self._offset = np.array(config.offset_rad or [0.0] * count, dtype=np.float64)
        self._own = tuple(own)
        self._order = [self.urdf_names.index(name) for name in own]

    def sample(
        self,
        names: Sequence[str],
        position: Sequence[float],
        velocity: Sequence[float],
        effort: Sequence[float],
        stamp_s: float,
        arrival_s: float,
        before: JointSample | None = None,
    ) -> JointSample:
        """A measurement of the driver as one of the robot's joints.

        Args:
            names: The driver's names, in any order, others among them.
            position: rad, one for each name.
            velocity: rad/s; empty where the driver gives none: then it is the difference to the
                sample before over the time between.
            effort: N m; empty where it is not measured.
            stamp_s: Monotonic time of the measurement.
            arrival_s: Monotonic time of its arrival.
            before: The sample before.

        Raises:
            JointStateError: A joint is missing, or the lengths differ.
        """
        place = {name: index for index, name in enumerate(names)}
        if missing := [name for name in self.joint_names if name not in place]:
            raise JointStateError(
                f"{', '.join(missing)} missing; it has {', '.join(names) or 'no names'}"
            )
        for what, values in (("position", position), ("velocity", velocity), ("effort", effort)):
            if len(values) != len(names) and (what == "position" or len(values)):
                raise JointStateError(f"{len(names)} names and {len(values)} values of {what}")
        columns = [place[name] for name in self.joint_names]

        def picked(values: Sequence[float]) -> Vector:
            return np.array(values, dtype=np.float64)[columns][self._order]

        sign, offset = self._sign[self._order], self._offset[self._order]
        measured = sign * picked(position) + offset
        rate = (
            sign * picked(velocity)
            if len(velocity)
            else _difference(measured, stamp_s, before, len(self._own))
        )
        torque = sign * picked(effort) if len(effort) else None
        return JointSample(self._own, measured, rate, stamp_s, torque, arrival_s)

    def command(self, positions: Mapping[str, float]) -> list[float]:
        """Targets in the driver's order and convention.

        Args:
            positions: rad by URDF name, for all joints.
        """
        wanted = np.array([positions[name] for name in self.urdf_names], dtype=np.float64)
        return (self._sign * (wanted - self._offset)).tolist()


def _difference(
    measured: Vector, stamp_s: float, before: JointSample | None, count: int
) -> Vector:
    if before is None:
        return np.zeros(count)
    passed_s = stamp_s - before.stamp_s
    return (measured - before.position) / passed_s if passed_s > 0 else before.velocity


def check_plausible(sample: JointSample, robot: Robot, kind: str) -> None:
    """Refuses a first measurement that no robot can have.

    Raises:
        ConfigError: A joint is not finite or far outside its limits, which it names.
    """
    limits = dict(zip(robot.joint_names, zip(robot.lower, robot.upper)))
    for name, value in zip(sample.names, sample.position.tolist(), strict=True):
        lower, upper = limits[name]
        if lower - _BEYOND_LIMIT_RAD <= value <= upper + _BEYOND_LIMIT_RAD:
            continue
        in_degrees = abs(value) > _FULL_TURN_RAD
        hint = "is it in degrees?" if in_degrees else f"check {kind}.sign and {kind}.offset_rad"
        raise ConfigError(
            f"{kind}: {name} measures {value:.4g} rad, its limits are {lower:.4g} to {upper:.4g}; "
            f"{hint}"
        )
