"""What an engine's process shares with its parent: tensors in memory, and short messages."""

import json
import mmap
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.physics.engine import PhysicsParameters
from dexgrasp_sim.physics.scene import PhysicsConfig, Scene, TableConfig
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import LookConfig

_ALIGNMENT = 64
_CONFIGS = {
    "table": TableConfig,
    "objects": tuple[ObjectConfig, ...],
    "object_of_env": tuple[int, ...],
    "physics": PhysicsConfig,
    "substeps": int,
    "camera": CameraConfig,
    "stereo_baseline_m": float,
    "look": LookConfig,
}
STATE = (
    "joint_position",
    "joint_velocity",
    "object_position",
    "object_quaternion",
    "object_rotation",
    "object_velocity",
    "fingertip_position",
    "grasp_center_position",
    "object_mass",
    "velocity_lead_s",
    "diverged",
)
"""The tensors of an engine."""
PARAMETERS = tuple(field.name for field in fields(PhysicsParameters))


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_CONFIGS[name])


def scene_to_text(scene: Scene) -> str:
    """A scene as JSON; the robot by its file."""
    plain = {
        name: _adapter(name).dump_python(getattr(scene, name), mode="json") for name in _CONFIGS
    }
    return json.dumps({"robot": str(scene.robot.path), **plain})


def scene_from_text(text: str) -> Scene:
    """The inverse of `scene_to_text`."""
    plain = json.loads(text)
    robot = load_robot(plain.pop("robot"))
    values = {
        name: _adapter(name).validate_json(json.dumps(value)) for name, value in plain.items()
    }
    return Scene(robot=robot, **values)


def shared_shapes(scene: Scene) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and types of the shared tensors: an engine's own, then what calls pass."""
    n, j, camera = scene.num_envs, scene.robot.num_joints, scene.camera
    pixels = camera.height, camera.width
    real, whole = torch.float32, torch.int64
    own = [(j,), (j,), (3,), (4,), (3, 3), (6,), (len(scene.robot.fingers), 3), (3,), (), (j,)]
    shapes = {name: ((n, *shape), real) for name, shape in zip(STATE, own, strict=False)}
    shapes |= {"diverged": ((n,), torch.bool), "env_ids": ((n,), whole), "keys": ((n,), whole)}
    shapes |= {"joint_targets": ((scene.substeps, n, j), real)}
    shapes |= {"start_position": ((n, j), real), "start_velocity": ((n, j), real)}
    shapes |= {"start_pose": ((n, 7), real), "push": ((n, 2, 3), real)}
    of_joints = ("stiffness_scale", "damping_scale", "joint_friction_scale")
    shapes |= {name: ((n, j) if name in of_joints else (n,), real) for name in PARAMETERS}
    shapes |= {"camera_position": ((n, 2, 3), torch.float64)}
    shapes |= {"camera_rotation": ((n, 2, 3, 3), torch.float64)}
    shapes |= {"depth": ((n, *pixels), torch.int16), "depth_m": ((n, *pixels), real)}
    shapes |= {"stereo": ((n, 2, 3, *pixels), torch.uint8), "rgb": ((n, 3, *pixels), torch.uint8)}
    return shapes


def shared_bytes(scene: Scene) -> int:
    """Size of the memory that holds the shared tensors."""
    return sum(_padded(shape, kind) for shape, kind in shared_shapes(scene).values())


def shared_tensors(scene: Scene, memory: mmap.mmap) -> dict[str, Tensor]:
    """The shared tensors by name, in memory of `shared_bytes`."""
    tensors, offset = {}, 0
    for name, (shape, kind) in shared_shapes(scene).items():
        count = torch.Size(shape).numel()
        flat = torch.frombuffer(memory, dtype=kind, count=count, offset=offset)
        tensors[name] = flat.view(shape)
        offset += _padded(shape, kind)
    return tensors


def _padded(shape: tuple[int, ...], kind: torch.dtype) -> int:
    size = torch.Size(shape).numel() * kind.itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def send(connection: Connection, message: Mapping[str, Any]) -> None:
    """Sends a message of plain values."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """The next message; EOFError if the other side is gone."""
    return json.loads(connection.recv_bytes())
