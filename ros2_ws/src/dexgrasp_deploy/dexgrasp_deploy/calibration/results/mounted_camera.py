"""The camera of a robot as its calibration says, checked before a policy looks through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.results.camera_info import CameraInfo
from dexgrasp_deploy.calibration.results.comparison import Deviation, compare_pose
from dexgrasp_deploy.calibration.results.extrinsics import Extrinsics, read_extrinsics
from dexgrasp_deploy.calibration.transforms import quaternion_wxyz, transform
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_DAY_S = 86400.0


@dataclass(frozen=True, eq=False)
class MountedCamera:
    """Where the images of a camera are taken.

    Attributes:
        parent: Frame of the robot in which the camera stands still.
        pose: [7] xyz m and quaternion wxyz in that frame, of the optical axes (x right, y down,
            z forward; REP 103) of the rectified image.
        warning: Why the policy may not know this view, "" if it does.
    """

    parent: str
    pose: NDArray[np.float64]
    warning: str = ""


def place_of(task: GraspConfig) -> MountedCamera:
    """The camera as it stood in training."""
    camera = task.camera
    pose = transform(camera.rotation_ros, camera.position)
    return MountedCamera(task.load_robot().root, _as_vector(pose))


def mounted_camera(
    path: Path,
    robot: Robot,
    task: GraspConfig | None,
    now: datetime,
    max_age_days: float,
    lens: CameraInfo | None = None,
    allow_outside: bool = False,
) -> MountedCamera:
    """Reads and checks where a camera is.

    Args:
        path: extrinsics.yaml of `dexgrasp calibrate hand-eye`.
        robot: The robot.
        task: The training task of the policy; None: there is nothing to compare with.
        now: Time of day, with a time zone.
        max_age_days: Oldest calibration that is accepted.
        lens: Lens and rectification of the (left) camera; None: its images are those of the
            calibration.
        allow_outside: Whether a place that the policy does not know is only a warning.

    Raises:
        ConfigError: The file is missing, wrong, too old or from the future; or, unless
            `allow_outside`, it is of another robot or the policy was trained with another place.
    """
    extrinsics = read_extrinsics(path)
    extrinsics.check(now, _DAY_S * max_age_days)
    complaints = [_other_robot(extrinsics, robot)]
    if task is not None:
        complaints.append(outside_of_training(compare_pose(extrinsics, task, lens)))
    warning = "; ".join(text for text in complaints if text)
    if warning and not allow_outside:
        raise ConfigError(f"{path}: {warning}; or set camera.calibration.allow_outside to true")
    turn = np.eye(3) if lens is None else lens.rectification.T
    matrix = extrinsics.matrix
    pose = transform(matrix[:3, :3] @ turn, matrix[:3, 3])
    return MountedCamera(extrinsics.parent, _as_vector(pose), warning)


def outside_of_training(deviations: Sequence[Deviation]) -> str:
    """What is outside of what a policy was trained with, and what to do; "" if nothing is."""
    outside = [each for each in deviations if not each.is_inside]
    if not outside:
        return ""
    return (
        f"outside of what the policy was trained with: {'; '.join(map(str, outside))}; move the "
        "camera, train with this camera pose"
    )


def _other_robot(extrinsics: Extrinsics, robot: Robot) -> str:
    if extrinsics.robot_sha256 in ("", robot.sha256):
        return ""
    return (
        f"calibrated with the files of {extrinsics.robot}, which are not those of {robot.name} as "
        "it is now; calibrate again"
    )


def _as_vector(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate((matrix[:3, 3], quaternion_wxyz(matrix)))
