"""Errors of the cameras' calibrated poses; in simulation only."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.robot.rotation import rpy_to_matrix
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import CameraJitterConfig

LEFT, RIGHT = 0, 1
"""Index of a camera in `CameraPoses`; the depth camera is the left one."""


class CameraPoses(NamedTuple):
    """Left and right camera of N environments, base frame.

    Attributes:
        position: [N, 2, 3] float64 m.
        rotation: [N, 2, 3, 3] float64, MuJoCo camera axes as columns.
    """

    position: Tensor
    rotation: Tensor


class CameraJitter(nn.Module):
    """Camera poses of N environments in their current episodes.

    Attributes:
        position: See `CameraPoses`; nominal until `begin`.
        rotation: See `CameraPoses`; nominal until `begin`.
    """

    position: Tensor
    rotation: Tensor
    _nominal_position: Tensor
    _nominal_rotation: Tensor

    def __init__(
        self,
        config: CameraJitterConfig,
        camera: CameraConfig,
        baseline_m: float,
        streams: RandomStreams,
    ) -> None:
        """Args:
        config: The errors.
        camera: The left camera at its nominal pose.
        baseline_m: Distance of the right camera along the left one's x axis.
        streams: Of the environments; its device is used.
        """
        super().__init__()
        self._config, self._baseline_m = config, baseline_m
        self.streams = streams
        device = streams.env.device
        cameras = camera.stereo_pair(baseline_m)
        position = torch.stack([torch.from_numpy(each.position) for each in cameras])  # [2, 3]
        rotation = torch.stack([torch.from_numpy(each.rotation) for each in cameras])  # [2, 3, 3]
        count = len(streams.env)
        for name, value in (
            ("_nominal_position", position[LEFT]),
            ("_nominal_rotation", rotation[LEFT]),
            ("position", position.repeat(count, 1, 1)),
            ("rotation", rotation.repeat(count, 1, 1, 1)),
        ):
            # not saved: it is a function of the episode's number
            self.register_buffer(name, value.to(device), persistent=False)

    @property
    def poses(self) -> CameraPoses | None:
        """Current poses, which `begin` changes in place; None without jitter."""
        return CameraPoses(self.position, self.rotation) if self._config.enabled else None

    def begin(self, ids: Tensor, episode: Tensor) -> None:
        """Draws the poses of environments [K] int64 for episodes of these numbers, [K] int64."""
        self.take(ids, *self.draw(ids, episode))

    def take(self, ids: Tensor, *poses: Tensor) -> None:
        """Takes what `draw` gave for environments [K]."""
        if poses:
            self.position[ids], self.rotation[ids] = poses

    def draw(self, ids: Tensor, episode: Tensor) -> tuple[Tensor, ...]:
        """Positions [K, 2, 3] and rotations [K, 2, 3, 3] of episodes; nothing without jitter."""
        if not self._config.enabled:
            return ()
        config = self._config
        drawn = self.streams.symmetric(Purpose.CAMERA, episode, 0, 12, ids).double()  # [K, 12]
        moved, turned, moved_right, turned_right = drawn.split(3, dim=1)  # [K, 3] each
        position = self._nominal_position + config.position_m * moved  # [K, 3]
        rotation = self._nominal_rotation @ rpy_to_matrix(config.rotation_rad * turned)
        offset = config.stereo_position_m * moved_right  # [K, 3], right from left
        offset[:, 0] += self._baseline_m
        turn = rpy_to_matrix(config.stereo_rotation_rad * turned_right)
        # a matrix product: rounding of a matrix-vector product would depend on the batch size
        right = rotation @ torch.cat((turn, offset.unsqueeze(2)), dim=2)  # [K, 3, 4]
        return (
            torch.stack((position, position + right[:, :, 3]), dim=1),
            torch.stack((rotation, right[:, :, :3]), dim=1),
        )
