"""Domain randomization of physics, start states and disturbances.

The parameters are those of the published table; `PhysicsParameters` says how they map to the
physics. Each is drawn once per episode, parameters of joints once per joint.
"""

import math
from dataclasses import fields
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.device_graphs import Captured
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.schedules import (
    NonNegativeSchedule,
    PositiveSchedule,
    Schedule,
    constant,
)

_LEVER_M = 0.01
"""Torque of a disturbance per force, as in the predecessor."""


def _bounce(schedule: Schedule) -> Schedule:
    if schedule.smallest < 0.0 or schedule.largest >= 1.0:
        raise ValueError(
            f"[{schedule.smallest:g}, {schedule.largest:g}] is no range of restitutions; "
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
        friction_scale: Factor on the friction of all contacts.
        restitution: 0 (no bounce) to below 1; reached only with short physics steps, see
            `PhysicsParameters`.
        stiffness_scale: Factor on the actuators' stiffness.
        damping_scale: Factor on the actuators' damping.
        joint_friction_scale: Factor on the dry joint friction of the URDF; 0: none.
        object_mass_scale: Factor on the object's mass and inertia.
        object_acceleration_m_s2: Largest acceleration by which the object is pushed.
        push_period_s: Size and direction of the push are drawn anew after this time.
        push_reach_m: The object is pushed only while all fingertips and the grasp centre are
            closer than this: a push tests the grasp.
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
        """Whether physical parameters differ between environments."""
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
        """Whether starts differ from `spawn` and the start posture."""
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
    streams: RandomStreams,
    ids: Tensor,
    episode: Tensor,
    num_joints: int,
) -> PhysicsParameters:
    """Parameters of K episodes of a robot with J joints; arguments as of `EpisodePart.draw`."""
    sizes = {
        "friction_scale": 1,
        "restitution": 1,
        "object_mass_scale": 1,
        "stiffness_scale": num_joints,
        "damping_scale": num_joints,
        "joint_friction_scale": num_joints,
    }
    drawn = streams.uniform(Purpose.PHYSICS, episode, 0, sum(sizes.values()), ids)  # [K, 3 + 3 J]
    values = {
        name: getattr(config, name).sample(difficulty, part)
        for name, part in zip(sizes, drawn.split(list(sizes.values()), dim=1), strict=True)
    }
    of_env = {name: values[name].squeeze(1) for name, size in sizes.items() if size == 1}
    return PhysicsParameters(**{**values, **of_env})


class Pushes(nn.Module):
    """Disturbances of N objects.

    Attributes:
        acceleration: [N] m/s^2, largest acceleration in the current episode.
    """

    acceleration: Tensor

    def __init__(
        self, config: RandomizationConfig, streams: RandomStreams, control_dt_s: float
    ) -> None:
        """Args:
        config: The strengths.
        streams: Of the environments.
        control_dt_s: Control period.
        """
        super().__init__()
        self._config, self.streams = config, streams
        self._period_steps = max(1, round(config.push_period_s / control_dt_s))
        env = streams.env
        self.register_buffer("acceleration", torch.zeros(len(env), device=env.device))
        self._pushes = Captured(self._pushes_of)

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> tuple[Tensor]:
        """Largest accelerations [K] of episodes; see `EpisodePart`."""
        drawn = self.streams.uniform(Purpose.PUSH_EPISODE, episode, 0, 1, ids)[:, 0]
        return (self._config.object_acceleration_m_s2.sample(difficulty, drawn),)

    def take(self, ids: Tensor, acceleration: Tensor) -> None:
        """Takes what `draw` gave for environments [K]."""
        self.acceleration[ids] = acceleration

    def apply(self, engine: PhysicsEngine, episode: Tensor, step: Tensor) -> None:
        """Sets a push on objects in reach of the hand, and none on the others.

        Args:
            engine: Where force and torque are set.
            episode: [N] int64, numbers of the episodes.
            step: [N] int64, control steps since the start of the episode.
        """
        mass, hand = engine.object_mass, (engine.fingertip_position, engine.grasp_center_position)
        engine.push_objects(
            *self._pushes(episode, step, mass, self.acceleration, engine.object_position, *hand)
        )

    def _pushes_of(
        self,
        episode: Tensor,
        step: Tensor,
        mass: Tensor,
        acceleration: Tensor,
        position: Tensor,
        fingertips: Tensor,
        grasp_center: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Force [N, 3] N and torque [N, 3] N m."""
        farthest_m = farthest(position, fingertips, grasp_center)  # [N]
        period = step // self._period_steps
        draws = self.streams.symmetric(Purpose.PUSH_STEP, episode, period, 5)  # [N, 5]
        # uniform on the sphere: the height is uniform (Archimedes), and so is the longitude
        force = _unit_vector(draws[:, 0], draws[:, 1])  # [N, 3]
        torque = _unit_vector(draws[:, 2], draws[:, 3])  # [N, 3]
        size = mass * acceleration * (draws[:, 4] + 1.0) / 2.0  # [N] N
        size = torch.where(farthest_m < self._config.push_reach_m, size, 0.0).unsqueeze(1)
        return size * force, size * _LEVER_M * torque


def farthest(position: Tensor, fingertips: Tensor, grasp_center: Tensor) -> Tensor:
    """Largest distance [N] m of fingertips [N, F, 3] and grasp centre [N, 3] to objects [N, 3]."""
    points = torch.cat((fingertips, grasp_center.unsqueeze(1)), dim=1)  # [N, F + 1, 3]
    return torch.linalg.norm(points - position.unsqueeze(1), dim=2).amax(dim=1)


class PhysicsDraws:
    """Draws the physics of episodes."""

    def __init__(
        self, config: RandomizationConfig, streams: RandomStreams, num_joints: int
    ) -> None:
        """Args:
        config: The strengths.
        streams: Of the environments.
        num_joints: J.
        """
        self._config, self._streams, self._joints = config, streams, num_joints

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> tuple[Tensor, ...]:
        """The fields of `PhysicsParameters`; see `EpisodePart`."""
        values = draw_physics(self._config, difficulty, self._streams, ids, episode, self._joints)
        return tuple(getattr(values, field.name) for field in fields(PhysicsParameters))


def _unit_vector(height: Tensor, longitude: Tensor) -> Tensor:
    """Unit vectors [N, 3] from z [N] and longitude / pi [N], both in [-1, 1]."""
    radius = torch.sqrt((1.0 - height * height).clamp_min(0.0))
    angle = math.pi * longitude
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle), height), dim=1)
