"""Cameras that are not quite where their calibration says; in simulation only."""

from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.robot.rotation import rpy_to_matrix
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_random import Purpose, stream_keys, symmetric

LEFT, RIGHT = 0, 1
"""Index of a camera in `CameraPoses`; the depth camera is the left one."""


@dataclass(frozen=True, config=STRICT)
class CameraJitterConfig:
    """Errors of the cameras' poses, drawn for each episode, uniform in plus or minus these.

    Attributes:
        position_m: Along each axis of the base frame, of both cameras together.
        rotation_rad: About each axis of the left camera, of both cameras together.
        stereo_position_m: Along each axis of the right camera, relative to the left one.
        stereo_rotation_rad: About each axis of the right camera, relative to the left one.
    """

    position_m: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0
    rotation_rad: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    stereo_position_m: Annotated[float, Field(ge=0.0, le=0.05)] = 0.0
    stereo_rotation_rad: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0

    @property
    def enabled(self) -> bool:
        """Whether cameras are moved at all."""
        return self != CameraJitterConfig()


class CameraPoses(NamedTuple):
    """Left and right camera of N environments, base frame.

    Attributes:
        position: [N, 2, 3] float64 m.
        rotation: [N, 2, 3, 3] float64, MuJoCo camera axes as columns.
    """

    position: np.ndarray
    rotation: np.ndarray


def jittered_poses(
    config: CameraJitterConfig,
    camera: CameraConfig,
    baseline_m: float,
    seed: int,
    env: np.ndarray,
    episode: np.ndarray,
) -> CameraPoses:
    """The cameras' poses in the present episodes.

    Args:
        config: The errors.
        camera: The left camera where it should be.
        baseline_m: Distance of the right camera along the left one's x axis.
        seed: Of the run.
        env: [N] int, global indices of the environments.
        episode: [N] int, number of each environment's episode.
    """
    drawn = symmetric(stream_keys(Purpose.CAMERA, seed, env, episode), 12)
    rotation = camera.rotation @ _turns(config.rotation_rad * drawn[:, 3:6])
    position = camera.position + config.position_m * drawn[:, 0:3]
    offset = config.stereo_position_m * drawn[:, 6:9]
    offset[:, 0] += baseline_m
    right_position = position + np.einsum("nij,nj->ni", rotation, offset)
    right_rotation = rotation @ _turns(config.stereo_rotation_rad * drawn[:, 9:12])
    return CameraPoses(
        np.stack((position, right_position), axis=1), np.stack((rotation, right_rotation), axis=1)
    )


def _turns(angles_rad: np.ndarray) -> np.ndarray:
    """Rotation matrices [N, 3, 3] of small turns [N, 3] about x, y and z."""
    return rpy_to_matrix(torch.from_numpy(angles_rad)).numpy()
