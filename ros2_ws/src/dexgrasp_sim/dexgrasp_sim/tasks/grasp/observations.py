"""Observation groups of the grasp task, each one entry of `GROUPS`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.control.proprioception import proprioception_spec
from dexgrasp_sim.objects.config import SHAPE_CLASSES
from dexgrasp_sim.objects.sets import check_mesh_files
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.specs import TensorSpec, Term, flat_spec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import episode_fields
from dexgrasp_sim.vec_env import EnvSpecs

if TYPE_CHECKING:
    from dexgrasp_sim.tasks.grasp.env import GraspEnv


PHASES = ("reach", "grasp", "lift")
"""Phases of an episode: `lift` while the object is lifted, else `grasp` while the hand is near it,
else `reach`."""
NEAR_M = 0.08
"""The hand is near when its grasp centre is closer than this to the object's centre. Episodes
begin with 12 to 50 cm; scripted grasps come to 0 to 2 cm."""
LIFTED_M = 0.02
"""An object is lifted when its lowest point is this far above the table."""


class Source(Enum):
    """Which sensors of a real robot measure a group."""

    JOINTS = "joints"
    CAMERA = "camera"
    NOTHING = "nothing"
    """No sensor: the group exists in simulation only."""


@dataclass(frozen=True)
class Group:
    """An observation group.

    Attributes:
        spec: Its spec for a task.
        write: Writes it for the current state of the environments into a tensor [N, *shape].
        source: What measures it on a robot.
    """

    spec: Callable[[GraspConfig], TensorSpec]
    write: Callable[["GraspEnv", Tensor], None]
    source: Source


class Measurements(Protocol):
    """Where hand and object are, as `PhysicsEngine` knows it or as sensors measure it."""

    joint_position: Tensor
    joint_velocity: Tensor
    object_position: Tensor
    object_rotation: Tensor
    fingertip_position: Tensor
    grasp_center_position: Tensor


def _proprio_spec(config: GraspConfig) -> TensorSpec:
    return proprioception_spec(config.action, config.load_robot())


def _write_proprio(env: "GraspEnv", out: Tensor) -> None:
    env.proprioception.observe(
        env.measured.joint_position,
        env.measured.joint_velocity,
        env.decoder,
        env.last_action,
        env.step_count / env.config.episode_steps,
        out,
        env.measured_hand_points,
    )


def _state_terms(robot: Robot) -> tuple[Term, ...]:
    return (
        Term("fingertip_from_object", 3 * len(robot.fingertips), "m", "base"),
        Term("grasp_center_from_object", 3, "m", "base"),
        Term("object_position", 3, "m", "base, from the spawn centre"),
        Term("object_x_axis", 3, "1", "base"),
        Term("object_z_axis", 3, "1", "base"),
        Term("object_extents", 3, "m", "object"),
        Term("object_shape", len(SHAPE_CLASSES), "1"),
    )


def _state_spec(config: GraspConfig) -> TensorSpec:
    return flat_spec("state", _state_terms(config.load_robot()))


def _write_state(env: "GraspEnv", out: Tensor) -> None:
    torch.cat((*_relative(env.measured, env.origin), env.object_shape), dim=1, out=out)


def _relative(measured: Measurements, origin: Tensor) -> tuple[Tensor, ...]:
    """The first five of `_state_terms`; `origin` [3] m is the spawn centre on the table."""
    position = measured.object_position
    return (
        (measured.fingertip_position - position.unsqueeze(1)).flatten(1),
        measured.grasp_center_position - position,
        position - origin,
        measured.object_rotation[:, :, 0],
        measured.object_rotation[:, :, 2],
    )


def _critic_spec(config: GraspConfig) -> TensorSpec:
    """Velocities and, if measurements have errors, also the exact state."""
    robot = config.load_robot()
    terms = (
        Term("object_linear_velocity", 3, "m/s", "base"),
        Term("object_angular_velocity", 3, "rad/s", "base"),
        Term("joint_velocity", robot.num_joints, "rad/s"),
    )
    if config.measures_exactly:
        return flat_spec("critic", terms)
    true = (
        Term("true_joint_position", robot.num_joints, "rad"),
        *(replace(term, name=f"true_{term.name}") for term in _state_terms(robot)[:5]),
    )
    return flat_spec("critic", (*terms, *true))


def _write_critic(env: "GraspEnv", out: Tensor) -> None:
    engine, exact = env.engine, env.config.measures_exactly
    true = () if exact else (engine.joint_position, *_relative(engine, env.origin))
    torch.cat((engine.object_velocity, engine.joint_velocity, *true), dim=1, out=out)


def _object_spec(config: GraspConfig) -> TensorSpec:
    del config
    return flat_spec("object", [Term("object_position", 3, "m", "base, from the spawn centre")])


def _write_object(env: "GraspEnv", out: Tensor) -> None:
    # without the attitude, which of round objects cannot be seen: its errors train the encoder
    torch.sub(env.engine.object_position, env.origin, out=out)


def _phase_spec(config: GraspConfig) -> TensorSpec:
    del config
    return flat_spec("phase", [Term(name, 1, "1") for name in PHASES])


def _write_phase(env: "GraspEnv", out: Tensor) -> None:
    """One-hot rows."""
    gap = env.engine.grasp_center_position - env.engine.object_position  # [N, 3]
    is_lifted = env.object_height() > LIFTED_M  # [N]
    is_near = torch.linalg.norm(gap, dim=1) < NEAR_M  # [N]
    phases = (~is_lifted & ~is_near, ~is_lifted & is_near, is_lifted)
    out.copy_(torch.stack(phases, dim=1))


def _depth_spec(config: GraspConfig) -> TensorSpec:
    return TensorSpec(
        "depth", (config.camera.height, config.camera.width), "int16", "mm", "camera z"
    )


def _write_depth(env: "GraspEnv", out: Tensor) -> None:
    env.images.write_depth(env.step_count, out)


def _stereo_rgb_spec(config: GraspConfig) -> TensorSpec:
    shape = (2, 3, config.camera.height, config.camera.width)
    return TensorSpec("stereo_rgb", shape, "uint8", "intensity")


def _write_stereo_rgb(env: "GraspEnv", out: Tensor) -> None:
    env.images.write_stereo_rgb(env.step_count, out)


GROUPS: dict[str, Group] = {
    "proprio": Group(_proprio_spec, _write_proprio, Source.JOINTS),
    "state": Group(_state_spec, _write_state, Source.NOTHING),
    "critic": Group(_critic_spec, _write_critic, Source.NOTHING),
    "depth": Group(_depth_spec, _write_depth, Source.CAMERA),
    "stereo_rgb": Group(_stereo_rgb_spec, _write_stereo_rgb, Source.CAMERA),
    "object": Group(_object_spec, _write_object, Source.NOTHING),
    "phase": Group(_phase_spec, _write_phase, Source.NOTHING),
}
"""By name. `proprio`: the robot's own measurements. `state`: the object's pose and shape, for
state policies and critics. `critic`: for critics only. `depth`: one depth image.
`stereo_rgb`: left and right colour image. `object`: target of the auxiliary loss.
`phase`: which of `PHASES` it is, by which distillation reports its errors.

Noise and latency of the config apply to `proprio`, `state` and the images, never to the others."""


def image_groups() -> tuple[str, ...]:
    """The groups that cameras measure."""
    return tuple(name for name, group in GROUPS.items() if group.source is Source.CAMERA)


def observation_spec(config: GraspConfig, group: str) -> TensorSpec:
    """The spec of one group.

    Raises:
        ConfigError: There is no such group.
    """
    if group not in GROUPS:
        raise ConfigError(f"observation group {group!r} is not one of {', '.join(GROUPS)}")
    return GROUPS[group].spec(config)


def all_specs(config: GraspConfig) -> dict[str, TensorSpec]:
    """The specs of all groups by name."""
    return {group: observation_spec(config, group) for group in GROUPS}


def view_specs(robot: Robot) -> tuple[TensorSpec, ...]:
    """What `VecEnv.telemetry` gives of one environment."""
    joints = (len(robot.joint_names),)
    return (
        TensorSpec("joint_position", joints, unit="rad"),
        TensorSpec("joint_velocity", joints, unit="rad/s"),
        TensorSpec("joint_target", joints, unit="rad"),
        TensorSpec("object_pose", (7,), unit="m, quaternion wxyz", frame="base"),
        TensorSpec("goal", (3,), unit="m", frame="base"),
    )


def grasp_specs(config: Mapping[str, Any], groups: Sequence[str]) -> EnvSpecs:
    """Specs of the task without building its physics.

    Raises:
        ConfigError: The config is wrong, or a mesh file of its objects is refused.
    """
    grasp = parse_config(GraspConfig, dict(config), source="task")
    check_mesh_files(grasp.objects)
    return EnvSpecs(
        tuple(observation_spec(grasp, group) for group in groups),
        len(grasp.action_names),
        grasp.control_dt_s,
        episode_fields(),
        view_specs(grasp.load_robot()),
    )
