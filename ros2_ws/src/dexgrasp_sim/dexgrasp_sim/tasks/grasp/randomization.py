"""Physics, starts and disturbances that differ between episodes, so that a policy copes with any.

The parameters are those of the published table; how each maps to the physics stands with
`PhysicsParameters`. Each is drawn once per episode, those of joints once per joint.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.schedules import (
    NonNegativeSchedule,
    PositiveSchedule,
    Schedule,
    constant,
)
from dexgrasp_sim.tasks.grasp.counter_noise import counter_uniform, draw_key

_LEVER_M = 0.01
"""Torque of a disturbance per force, as in the predecessor."""


def _bounce(schedule: Schedule) -> Schedule:
    if schedule.smallest < 0.0 or schedule.largest >= 1.0:
        raise ValueError(
            f"[{schedule.smallest:g}, {schedule.largest:g}] leaves what contacts can do; "
            "give numbers from 0 to below 1"
        )
    return schedule


def _tilt(schedule: Schedule) -> Schedule:
    if schedule.smallest < 0.0 or schedule.largest > math.pi:
        raise ValueError("tilts lie between 0 and pi rad")
    return schedule


def _fraction(schedule: Schedule) -> Schedule:
    if schedule.smallest < 0.0 or schedule.largest > 1.0:
        raise ValueError("fractions lie between 0 and 1; widen `spawn` itself instead")
    return schedule


FractionSchedule = Annotated[Schedule, AfterValidator(_fraction)]


@dataclass(frozen=True, config=STRICT)
class RandomizationConfig:
    """What is drawn at the start of an episode. The defaults change nothing.

    Attributes:
        friction_scale: See `PhysicsParameters`, as for the five that follow.
        object_acceleration_m_s2: Largest acceleration by which the object is pushed; its size and
            direction are drawn anew every `push_period_s`.
        push_period_s: See above.
        push_reach_m: The object is pushed only while the whole hand is within this distance:
            a push is meant to test the grasp, not to move the object away from the hand.
        spawn_width_scale: Fraction of `spawn.half_width_m` in use.
        spawn_yaw_scale: Fraction of `spawn.yaw_rad` in use.
        spawn_tilt_rad: Largest turn about x and then y; a tilted object is dropped.
        joint_offset_rad: Largest offset of each joint from the start posture.
        joint_speed_rad_s: Largest speed of each joint at the start.
    """

    friction_scale: NonNegativeSchedule = constant(1.0)
    restitution: Annotated[Schedule, AfterValidator(_bounce)] = constant(0.0)
    stiffness_scale: PositiveSchedule = constant(1.0)
    damping_scale: PositiveSchedule = constant(1.0)
    joint_friction_scale: NonNegativeSchedule = constant(0.0)
    object_mass_scale: PositiveSchedule = constant(1.0)
    object_acceleration_m_s2: NonNegativeSchedule = constant(0.0)
    push_period_s: Annotated[float, Field(gt=0)] = 1.0
    push_reach_m: Annotated[float, Field(gt=0)] = 0.3
    spawn_width_scale: FractionSchedule = constant(1.0)
    spawn_yaw_scale: FractionSchedule = constant(1.0)
    spawn_tilt_rad: Annotated[Schedule, AfterValidator(_tilt)] = constant(0.0)
    joint_offset_rad: NonNegativeSchedule = constant(0.0)
    joint_speed_rad_s: NonNegativeSchedule = constant(0.0)

    @property
    def changes_physics(self) -> bool:
        """Whether environments need physical parameters of their own."""
        return not (
            self.friction_scale.is_always(1.0)
            and self.restitution.is_always(0.0)
            and self.stiffness_scale.is_always(1.0)
            and self.damping_scale.is_always(1.0)
            and self.joint_friction_scale.is_always(0.0)
            and self.object_mass_scale.is_always(1.0)
        )

    @property
    def changes_starts(self) -> bool:
        """Whether episodes start otherwise than `spawn` and the start posture say."""
        return not (
            self.spawn_width_scale.is_always(1.0)
            and self.spawn_yaw_scale.is_always(1.0)
            and self.spawn_tilt_rad.is_always(0.0)
            and self.joint_offset_rad.is_always(0.0)
            and self.joint_speed_rad_s.is_always(0.0)
        )

    @property
    def pushes_objects(self) -> bool:
        """Whether objects are disturbed."""
        return not self.object_acceleration_m_s2.is_always(0.0)


def draw_physics(
    config: RandomizationConfig,
    difficulty: float,
    generators: Sequence[np.random.Generator],
    num_joints: int,
) -> PhysicsParameters:
    """Parameters of K episodes, one generator for each."""
    parameters = PhysicsParameters.nominal(len(generators), num_joints)
    for row, generator in enumerate(generators):
        for name, target in vars(parameters).items():
            low, high = getattr(config, name).at(difficulty)
            drawn = generator.uniform(low, high, target[row].shape)
            target[row] = torch.as_tensor(drawn)
    return parameters


@plain_dataclass(frozen=True)
class Start:
    """How an episode starts; the defaults are the config's own spawn and posture.

    Attributes:
        width_scale: Fraction of the spawn rectangle.
        yaw_scale: Fraction of the yaw range.
        tilt_rad: Turns about x and then y.
        joint_offset: [J] rad from the start posture.
        joint_velocity: [J] rad/s.
    """

    width_scale: float = 1.0
    yaw_scale: float = 1.0
    tilt_rad: tuple[float, float] = (0.0, 0.0)
    joint_offset: Tensor = field(default_factory=lambda: torch.zeros(0))
    joint_velocity: Tensor = field(default_factory=lambda: torch.zeros(0))


def draw_start(
    config: RandomizationConfig,
    difficulty: float,
    generator: np.random.Generator,
    num_joints: int,
) -> Start:
    """The start of one episode of a robot with J joints."""

    def draw(schedule: Schedule) -> float:
        return generator.uniform(*schedule.at(difficulty))

    def spread(schedule: Schedule, count: int) -> np.ndarray:
        return draw(schedule) * generator.uniform(-1.0, 1.0, count)

    tilt_x, tilt_y = spread(config.spawn_tilt_rad, 2).tolist()
    return Start(
        width_scale=draw(config.spawn_width_scale),
        yaw_scale=draw(config.spawn_yaw_scale),
        tilt_rad=(tilt_x, tilt_y),
        joint_offset=torch.from_numpy(spread(config.joint_offset_rad, num_joints)).float(),
        joint_velocity=torch.from_numpy(spread(config.joint_speed_rad_s, num_joints)).float(),
    )


class Pushes:
    """Disturbances of N objects.

    Attributes:
        acceleration: [N] m/s^2, the largest of this episode.
    """

    def __init__(self, config: RandomizationConfig, num_envs: int, control_dt_s: float) -> None:
        self._config = config
        self._period_steps = max(1, round(config.push_period_s / control_dt_s))
        self.key = torch.zeros(num_envs, dtype=torch.int64)
        self.acceleration = torch.zeros(num_envs)

    def begin(self, env: int, difficulty: float, generator: np.random.Generator) -> None:
        """Draws the largest acceleration of one environment's episode."""
        self.key[env] = draw_key(generator)
        limits = self._config.object_acceleration_m_s2.at(difficulty)
        self.acceleration[env] = generator.uniform(*limits)

    def apply(self, engine: PhysicsEngine, farthest_m: Tensor, step: Tensor) -> None:
        """Pushes the objects that are in reach of the hand, the others not.

        Args:
            engine: Gets force and torque.
            farthest_m: [N] largest distance of a fingertip or the grasp centre to the object.
            step: [N] int64, control steps since the start of the episode.
        """
        draws = counter_uniform(self.key, step // self._period_steps, range(5))
        # uniform on the sphere: the height is uniform (Archimedes), and so is the longitude
        force = _unit_vector(draws[:, 0], draws[:, 1])
        torque = _unit_vector(draws[:, 2], draws[:, 3])
        size = engine.object_mass * self.acceleration * (draws[:, 4] + 1.0) / 2.0
        size = torch.where(farthest_m < self._config.push_reach_m, size, 0.0).unsqueeze(1)
        engine.push_objects(size * force, size * _LEVER_M * torque)

    def state_dict(self) -> dict[str, Tensor]:
        """What the rest of the episodes depends on."""
        return {"key": self.key.clone(), "acceleration": self.acceleration.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        self.key.copy_(state["key"])
        self.acceleration.copy_(state["acceleration"])


def _unit_vector(height: Tensor, longitude: Tensor) -> Tensor:
    """[N, 3] of two numbers [N] in [-1, 1]."""
    radius = torch.sqrt((1.0 - height * height).clamp_min(0.0))
    angle = math.pi * longitude
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle), height), dim=1)


def tilted(yaw_quaternion: Sequence[float], tilt_rad: tuple[float, float]) -> np.ndarray:
    """[4] wxyz: a turn about x, then about y, after `yaw_quaternion`; all about base axes."""
    about_x, about_y = tilt_rad
    cx, sx = math.cos(about_x / 2), math.sin(about_x / 2)
    cy, sy = math.cos(about_y / 2), math.sin(about_y / 2)
    w, x, y, z = yaw_quaternion
    w, x, y, z = cx * w - sx * x, cx * x + sx * w, cx * y - sx * z, cx * z + sx * y
    return np.array([cy * w - sy * y, cy * x + sy * z, cy * y + sy * w, cy * z - sy * x])
