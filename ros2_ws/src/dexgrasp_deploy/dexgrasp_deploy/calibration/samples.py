"""A recorded set of hand-eye samples: images, and where the arm was.

    <folder>/
        samples.json   which image belongs to which joint positions or palm pose
        *.png          the images, as the camera gives them

`samples.json` holds a `SampleFile`:

    {"format": "dexgrasp hand-eye samples 1",
     "setup": "eye-to-base",
     "robot": "kuka_allegro",
     "samples": [
       {"image": "00.png", "joints_rad": {"iiwa7_joint_1": -0.979, ...}},
       {"image": "01.png", "palm": {"xyz_m": [-0.55, 0.1, 0.5], "quaternion_xyzw": [0, 1, 0, 0]}}]}
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.calibration.board import BoardConfig
from dexgrasp_deploy.calibration.hand_eye import Pose, Setup
from dexgrasp_deploy.calibration.images import BoardImages, find_boards
from dexgrasp_deploy.calibration.transforms import Matrix, from_quaternion, transform
from dexgrasp_sim.config import STRICT, ConfigError, parse_config, to_dict
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, Robot, load_robot

FORMAT = "dexgrasp hand-eye samples 1"
SAMPLES_FILE = "samples.json"

_Quaternion = tuple[float, float, float, float]


@dataclass(frozen=True, config=STRICT)
class PalmEntry:
    """A measured pose of the hand's frame in the base of the robot.

    Attributes:
        xyz_m: Position.
        quaternion_xyzw: Orientation as in ROS' messages; or
        quaternion_wxyz: in the other order.
    """

    xyz_m: tuple[float, float, float]
    quaternion_xyzw: _Quaternion | None = None
    quaternion_wxyz: _Quaternion | None = None

    @model_validator(mode="after")
    def _check(self) -> "PalmEntry":
        if (self.quaternion_xyzw is None) == (self.quaternion_wxyz is None):
            raise ValueError("give exactly one of quaternion_xyzw and quaternion_wxyz")
        if abs(np.linalg.norm(self._wxyz) - 1.0) > 1e-2:
            raise ValueError(f"the quaternion {self._wxyz} is not of unit length; normalise it")
        return self

    @property
    def _wxyz(self) -> _Quaternion:
        if self.quaternion_wxyz is not None:
            return self.quaternion_wxyz
        x, y, z, w = self.quaternion_xyzw  # type: ignore[misc]
        return w, x, y, z

    @property
    def matrix(self) -> Matrix:
        """base_T_palm [4, 4]."""
        return from_quaternion(self.xyz_m, self._wxyz)


@dataclass(frozen=True, config=STRICT)
class SampleEntry:
    """One pose.

    Attributes:
        image: File beside `samples.json`.
        joints_rad: Measured positions by joint name, at least of the joints that move the hand's
            frame; or
        palm: the measured pose of that frame.
    """

    image: str
    joints_rad: dict[str, float] | None = None
    palm: PalmEntry | None = None

    @model_validator(mode="after")
    def _check(self) -> "SampleEntry":
        if (self.joints_rad is None) == (self.palm is None):
            raise ValueError(f"{self.image}: give exactly one of joints_rad and palm")
        return self


@dataclass(frozen=True, config=STRICT)
class SampleFile:
    """Content of `samples.json`.

    Attributes:
        format: Version of this layout.
        setup: Where the camera is mounted.
        samples: The poses.
        robot: One of `robot_names`, or the path of a `robot.yaml`.
        frame: The frame that carries board or camera; empty for the robot's palm.
    """

    format: Literal["dexgrasp hand-eye samples 1"]
    setup: Setup
    samples: tuple[SampleEntry, ...]
    robot: str = DEFAULT_ROBOT
    frame: str = ""


@plain_dataclass(frozen=True, eq=False)
class SampleSet:
    """A set that was read.

    Attributes:
        setup: Where the camera is mounted.
        robot: The robot.
        frame: The frame that carries board or camera.
        poses: Of the images in which the board was found.
        images: What was found in the images.
        sha256: Hash of `samples.json` and all its images.
    """

    setup: Setup
    robot: Robot
    frame: str
    poses: tuple[Pose, ...]
    images: BoardImages
    sha256: str

    @property
    def parent(self) -> str:
        """The frame in which the camera stands still."""
        return self.robot.root if self.setup is Setup.EYE_TO_BASE else self.frame


def read_samples(folder: Path, board: BoardConfig) -> SampleSet:
    """Reads a set and looks for the board in its images.

    Raises:
        ConfigError: A file is missing or wrong, a joint is missing or beyond its limits, images
            differ in size, or the board is in none.
    """
    path = folder / SAMPLES_FILE
    file = parse_config(SampleFile, _read_json(path), source=str(path))
    names = [entry.image for entry in file.samples]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{path}: {twice} is named twice; give each pose an image of its own")
    robot = load_robot(file.robot)
    frame = file.frame or robot.palm
    hands = [
        entry.palm.matrix if entry.palm else palm_pose(robot, frame, entry.joints_rad or {})
        for entry in file.samples
    ]
    images = find_boards(board, [folder / name for name in names])
    poses = [
        Pose(name, hand, images.views[name])
        for name, hand in zip(names, hands, strict=True)
        if name in images.views
    ]
    digest = _digest([path, *(folder / name for name in names)])
    return SampleSet(file.setup, robot, frame, tuple(poses), images, digest)


def write_samples(folder: Path, file: SampleFile) -> None:
    """Writes `samples.json`."""
    (folder / SAMPLES_FILE).write_text(json.dumps(to_dict(file), indent=1) + "\n")


def palm_pose(robot: Robot, frame: str, joints_rad: dict[str, float]) -> Matrix:
    """base_T_frame [4, 4] from joint positions by name.

    Raises:
        ConfigError: The robot has no such frame, or a joint that moves it is missing or more than
            0.1 rad beyond its limits (degrees?).
    """
    try:
        kinematics = Kinematics(robot, [frame], dtype=torch.float64)
        moving = kinematics.chain(frame).joint_indices
    except ValueError as error:
        raise ConfigError(f"`frame`: {error}") from None
    q = np.zeros(robot.num_joints)
    for index in moving:
        name = robot.joint_names[index]
        if name not in joints_rad:
            raise ConfigError(f"joints_rad: {name} is missing; record all joints of the arm")
        q[index] = joints_rad[name]
        if not robot.lower[index] - 0.1 <= q[index] <= robot.upper[index] + 0.1:
            raise ConfigError(
                f"joints_rad: {name} = {q[index]:g}: outside its limits {robot.lower[index]:g} to "
                f"{robot.upper[index]:g} rad; record radians"
            )
    poses = kinematics.forward(torch.from_numpy(q)[None])
    return transform(poses.rotation[0, 0].numpy(), poses.position[0, 0].numpy())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give a folder with {SAMPLES_FILE}, see "
            "docs/calibration.md"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error}); see docs/calibration.md") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold an object; see docs/calibration.md")
    return content


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
