"""Where a camera is: the YAML file, its transform for ROS, and its age."""

import math
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.calibration.quality import Grade
from dexgrasp_deploy.calibration.transforms import Matrix, from_quaternion, quaternion_wxyz
from dexgrasp_sim.config import STRICT, ConfigError, load_config, to_dict

FORMAT = "dexgrasp extrinsics 1"
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_FUTURE_S = 300.0
"""Clocks of two computers of a lab may differ by so much."""
_FRAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_/]*")

NonNegative = Annotated[float, Field(ge=0.0)]


@dataclass(frozen=True, config=STRICT)
class Extrinsics:
    """Pose of a camera's optical frame (x right, y down, z forward; REP 103) in another frame.

    Attributes:
        parent: The frame in which the camera stands still: the robot's base, or its palm.
        child: The camera's optical frame.
        xyz_m: Position of the camera in the parent frame.
        quaternion_xyzw: Orientation, in the order of ROS' messages.
        stamp: When it was calibrated, UTC, as 2026-11-26T18:40:00Z.
        setup: Where the camera is mounted.
        rms_px: Reprojection error.
        samples: Number of poses that determine it.
        samples_sha256: Hash of the recorded set.
        robot: Name or `robot.yaml` of the robot whose kinematics were used.
        robot_sha256: Hash of its files.
        position_std_mm: Standard deviation of the position along the worst axis.
        rotation_std_deg: The same of the orientation.
        verdict: `ok` or `poor`.
        format: Version of this layout.
    """

    parent: str
    child: str
    xyz_m: tuple[float, float, float]
    quaternion_xyzw: tuple[float, float, float, float]
    stamp: str
    setup: Literal["eye-to-base", "eye-in-hand"]
    rms_px: NonNegative
    samples: Annotated[int, Field(ge=1)]
    samples_sha256: str
    robot: str
    robot_sha256: str
    position_std_mm: NonNegative
    rotation_std_deg: NonNegative
    verdict: Grade
    format: Literal["dexgrasp extrinsics 1"] = FORMAT

    @model_validator(mode="after")
    def _check(self) -> "Extrinsics":
        length = math.sqrt(sum(value * value for value in self.quaternion_xyzw))
        if abs(length - 1.0) > 1e-3:
            raise ValueError(
                f"quaternion_xyzw {self.quaternion_xyzw} is not of unit length; calibrate again"
            )
        for key, frame in (("parent", self.parent), ("child", self.child)):
            if not _FRAME.fullmatch(frame):
                raise ValueError(f"{key} {frame!r} is no frame name; use letters, digits and _")
        if self.parent == self.child:
            raise ValueError(f"parent and child are both {self.child!r}; name the camera's frame")
        _ = self.calibrated
        return self

    @property
    def matrix(self) -> Matrix:
        """parent_T_camera [4, 4]."""
        x, y, z, w = self.quaternion_xyzw
        return from_quaternion(self.xyz_m, (w, x, y, z))

    @property
    def calibrated(self) -> datetime:
        """The time of `stamp`."""
        try:
            return datetime.strptime(self.stamp, _STAMP).replace(tzinfo=timezone.utc)
        except ValueError:
            raise ValueError(
                f"stamp {self.stamp!r} is not of the form 2026-11-26T18:40:00Z; correct it"
            ) from None

    def age_s(self, now: datetime) -> float:
        """Seconds from the calibration to `now` (with a time zone); negative in its future."""
        return (now - self.calibrated).total_seconds()

    def check(self, now: datetime, max_age_s: float) -> None:
        """Checks that a robot may be run with it.

        Args:
            now: Time of day, with a time zone.
            max_age_s: Oldest calibration that is accepted.

        Raises:
            ConfigError: It was judged unusable, is too old, or comes from the future.
        """
        age_s = self.age_s(now)
        if self.verdict is Grade.REFUSE:
            raise ConfigError(f"the calibration of {self.child} was refused; calibrate again")
        if age_s < -_FUTURE_S:
            raise ConfigError(
                f"the calibration of {self.child} is {-age_s / 3600:.1f} h ahead of this "
                "computer's clock; set the clock, or calibrate again"
            )
        if age_s > max_age_s:
            raise ConfigError(
                f"the calibration of {self.child} is {age_s / 86400:.1f} days old, at most "
                f"{max_age_s / 86400:.1f} are allowed; run `dexgrasp calibrate hand-eye` again"
            )


def ros_quaternion(matrix: Matrix) -> tuple[float, float, float, float]:
    """Quaternion xyzw of a transform."""
    w, x, y, z = quaternion_wxyz(matrix).tolist()
    return x, y, z, w


def stamp_of(time: datetime) -> str:
    """`stamp` of a time with a time zone."""
    return time.astimezone(timezone.utc).strftime(_STAMP)


def write_extrinsics(path: Path, extrinsics: Extrinsics) -> None:
    """Writes the YAML file."""
    content = {"format": extrinsics.format, **to_dict(extrinsics)}
    path.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None))


def read_extrinsics(path: Path) -> Extrinsics:
    """Reads the YAML file; call `check` before a robot is run with it.

    Raises:
        ConfigError: It is missing, incomplete or of another format.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path}: no calibration here; make one with `dexgrasp calibrate hand-eye`"
        )
    return load_config(Extrinsics, path)


def static_transform_arguments(extrinsics: Extrinsics) -> list[str]:
    """Arguments of tf2_ros' static_transform_publisher."""
    names = ("x", "y", "z", "qx", "qy", "qz", "qw")
    values = (*extrinsics.xyz_m, *extrinsics.quaternion_xyzw)
    pairs = [(f"--{name}", f"{value:.9f}") for name, value in zip(names, values)]
    pairs += [("--frame-id", extrinsics.parent), ("--child-frame-id", extrinsics.child)]
    return [word for pair in pairs for word in pair]


def static_transform_command(extrinsics: Extrinsics) -> str:
    """The command that publishes the transform."""
    arguments = " ".join(static_transform_arguments(extrinsics))
    return f"ros2 run tf2_ros static_transform_publisher {arguments}"


def static_transform_launch(extrinsics: Extrinsics) -> str:
    """Text of a launch file that publishes the transform."""
    words = static_transform_arguments(extrinsics)
    pairs = "\n".join(
        f'                "{name}", "{value}",' for name, value in zip(words[::2], words[1::2])
    )
    return f'''"""Publishes where {extrinsics.child} is; calibrated {extrinsics.stamp}."""

from launch import LaunchDescription
from launch_ros.actions import Node


def generate_launch_description():
    return LaunchDescription([
        Node(
            package="tf2_ros",
            executable="static_transform_publisher",
            arguments=[
{pairs}
            ],
        )
    ])
'''
