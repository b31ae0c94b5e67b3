"""Observation groups of the grasp task and the terms they are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.control.proprioception import proprioception_spec
from dexgrasp_sim.objects.config import SHAPE_CLASSES
from dexgrasp_sim.objects.sets import check_mesh_files
from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.specs import TensorSpec, Term, flat_spec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vec_env import EnvSpecs

GROUPS = ("proprio", "state", "critic", "depth", "stereo_rgb", "object")


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


def _critic_terms(robot: Robot, exact: bool) -> tuple[Term, ...]:
    """With `exact` false a critic gets the truth on top of what `proprio` and `state` measure."""
    terms = (
        Term("object_linear_velocity", 3, "m/s", "base"),
        Term("object_angular_velocity", 3, "rad/s", "base"),
        Term("joint_velocity", robot.num_joints, "rad/s"),
    )
    if exact:
        return terms
    return (
        *terms,
        Term("true_joint_position", robot.num_joints, "rad"),
        *(replace(term, name=f"true_{term.name}") for term in _state_terms(robot)[:5]),
    )


_OBJECT_TERMS = (
    Term("object_position", 3, "m", "base, from the spawn centre"),
    Term("object_z_axis", 3, "1", "base"),
)


def observation_spec(config: GraspConfig, group: str) -> TensorSpec:
    """The spec of one group.

    `proprio`: what the robot measures of itself. `state`: the object's pose and shape, for state
    policies and critics. `critic`: velocities that only a critic gets. `depth`: one depth image.
    `stereo_rgb`: left and right colour image. `object`: target of the auxiliary loss.

    Where the config asks for noise or latency, `proprio`, `state` and the images have it. Nothing
    in `critic` and `object` ever does; `critic` then holds the true joint positions, hand points
    and object pose too.

    Raises:
        ConfigError: There is no such group.
    """
    robot, height, width = config.load_robot(), config.camera.height, config.camera.width
    if group == "proprio":
        return proprioception_spec(config.action, robot)
    if group == "state":
        return flat_spec("state", _state_terms(robot))
    if group == "critic":
        return flat_spec("critic", _critic_terms(robot, config.measures_exactly))
    if group == "object":
        return flat_spec("object", _OBJECT_TERMS)
    if group == "depth":
        return TensorSpec("depth", (height, width), "int16", "mm", "camera z")
    if group == "stereo_rgb":
        return TensorSpec("stereo_rgb", (2, 3, height, width), "uint8", "intensity")
    raise ConfigError(f"observation group {group!r} is not one of {', '.join(GROUPS)}")


def all_specs(config: GraspConfig) -> dict[str, TensorSpec]:
    """The specs of all groups by name."""
    return {group: observation_spec(config, group) for group in GROUPS}


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
    )


class Measurements(Protocol):
    """Where hand and object are, as `PhysicsEngine` knows it or as sensors measure it."""

    joint_position: Tensor
    joint_velocity: Tensor
    object_position: Tensor
    object_rotation: Tensor
    fingertip_position: Tensor
    grasp_center_position: Tensor


def write_object_state(measured: Measurements, origin: Tensor, shape: Tensor, out: Tensor) -> None:
    """The `state` group.

    Args:
        measured: The present measurements.
        origin: [3] m, spawn centre on the table.
        shape: [N, 3 + shape classes] extents and shape one-hot of each environment's object.
        out: [N, S] float32, written in place.
    """
    torch.cat((*_relative(measured, origin), shape), dim=1, out=out)


def _relative(measured: Measurements, origin: Tensor) -> tuple[Tensor, ...]:
    """The first five of `_state_terms`."""
    position = measured.object_position
    return (
        (measured.fingertip_position - position.unsqueeze(1)).flatten(1),
        measured.grasp_center_position - position,
        position - origin,
        measured.object_rotation[:, :, 0],
        measured.object_rotation[:, :, 2],
    )


def write_privileged(engine: PhysicsEngine, origin: Tensor, exact: bool, out: Tensor) -> None:
    """The `critic` group.

    Args:
        engine: Current physics.
        origin: [3] m, spawn centre on the table.
        exact: `GraspConfig.measures_exactly`; if not, the true values come with it.
        out: [N, C] float32, written in place.
    """
    true = () if exact else (engine.joint_position, *_relative(engine, origin))
    torch.cat((engine.object_velocity, engine.joint_velocity, *true), dim=1, out=out)


def write_auxiliary_target(engine: PhysicsEngine, origin: Tensor, out: Tensor) -> None:
    """The `object` group: [N, 6] float32, written in place; `origin` as above."""
    axis = engine.object_rotation[:, :, 2]
    torch.cat((engine.object_position - origin, axis), dim=1, out=out)
