"""Adds errors to depth and colour images on any device, reproducibly.

This module chooses by device between loops compiled for the CPU, Warp's kernels for depth images
on GPUs, where Warp is installed, and tensor code. All use the same random numbers.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dexgrasp_sim.devices import has_warp_kernels
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.vision import depth_noise_kernels, depth_noise_tensors, rgb_kernels, rgb_tensors
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.depth_strengths import DepthStrengths, depth_strengths
from dexgrasp_sim.vision.image_config import ImageConfig
from dexgrasp_sim.vision.rgb_changes import RgbAugmentation, RgbChanges

CorruptDepth = Callable[[Tensor, Tensor, Tensor, DepthStrengths], None]


class ImageErrors(nn.Module):
    """Errors of the images of N environments.

    They depend only on the seed, the environment's global index, its episode and its step, not on
    threads or on the split of environments over processes. Two devices give the same up to
    rounding, which changes a few of 10^4 pixels.
    """

    def __init__(
        self,
        config: ImageConfig,
        camera: CameraConfig,
        streams: RandomStreams,
        tensors_on_cpu: bool = False,
    ) -> None:
        """Args:
        config: `depth_noise` and `rgb` are used.
        camera: Of the images: its size, focal length and range.
        streams: Of the environments.
        tensors_on_cpu: Use the tensor code on the CPU too, where it is several times slower.
        """
        super().__init__()
        self._config, self._tensors_on_cpu = config, tensors_on_cpu
        self._shape = (len(streams.env), camera.height, camera.width)
        self._strengths = depth_strengths(config.depth_noise, camera)
        self.streams = streams
        self._rgb = RgbAugmentation(config.rgb, camera.height, streams)

    def add_to_depth(self, images: Tensor, episode: Tensor, step: Tensor) -> None:
        """Changes depth images in place.

        Args:
            images: [N, H, W] int16 millimetres, 0 = invalid; afterwards valid pixels are within
                the camera's range.
            episode: [N] int64, number of each environment's episode.
            step: [N] int64, step within it.

        Raises:
            ValueError: The images' shape or type is another one.
        """
        if images.shape != self._shape or images.dtype != torch.int16:
            raise ValueError(
                f"depth images are {_describe(images)}; they must be int16 {self._shape}, as the "
                "camera config and the number of environments give it"
            )
        config = self._config.depth_noise
        if not config.enabled:
            return
        keys = self.streams.keys(Purpose.DEPTH_STEP, episode, step)  # [N]
        drawn = self.streams.symmetric(Purpose.DEPTH_EPISODE, episode)[:, 0]  # [N]
        corrupt = self._depth_code(images.device)
        corrupt(images, keys, config.disparity_bias_px * drawn, self._strengths)

    def add_to_rgb(self, images: Tensor, episode: Tensor, step: Tensor) -> None:
        """Changes colour images in place.

        Args:
            images: [N, V, 3, H, W] uint8, V views of each environment.
            episode: [N] int64, number of each environment's episode.
            step: [N] int64, step within it.

        Raises:
            ValueError: The images' shape or type is another one.
        """
        count, height, width = self._shape
        wrong_shape = images.ndim != 5 or images.shape[0:1] + images.shape[2:] != (
            count,
            3,
            height,
            width,
        )
        if wrong_shape or images.dtype != torch.uint8:
            raise ValueError(
                f"colour images are {_describe(images)}; they must be uint8 "
                f"({count}, views, 3, {height}, {width}), as the camera config and the number of "
                "environments give it"
            )
        if not self._config.rgb.enabled:
            return
        # plus 1: other keys than those of the motion blur
        keys = self.streams.keys(Purpose.RGB_STEP, episode, step) + 1  # [N]
        augment = rgb_tensors.augment if self._as_tensors(images) else _augment_on_cpu
        augment(images, keys, self._rgb.draw(episode, step))

    def _depth_code(self, device: torch.device) -> CorruptDepth:
        if has_warp_kernels(device):
            from dexgrasp_sim.vision import depth_noise_warp  # slow to import

            return depth_noise_warp.corrupt
        use_tensors = self._tensors_on_cpu or device.type != "cpu"
        return depth_noise_tensors.corrupt if use_tensors else _corrupt_on_cpu

    def _as_tensors(self, images: Tensor) -> bool:
        return self._tensors_on_cpu or images.device.type != "cpu"


def _describe(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"


def _corrupt_on_cpu(
    images: Tensor, keys: Tensor, disparity_bias: Tensor, strengths: DepthStrengths
) -> None:
    array = images.numpy()
    contiguous = np.ascontiguousarray(array)
    depth_noise_kernels.corrupt(
        contiguous, keys.numpy().view(np.uint64), disparity_bias.numpy(), strengths
    )
    if contiguous is not array:
        array[:] = contiguous


def _augment_on_cpu(images: Tensor, keys: Tensor, changes: RgbChanges) -> None:
    array = images.numpy()
    contiguous = np.ascontiguousarray(array)
    rgb_kernels.augment(
        contiguous,
        keys.numpy().view(np.uint64),
        *(each.numpy() for each in (changes.weights, changes.matrices, changes.curves)),
        changes.read_noise,
        changes.shot_noise,
    )
    if contiguous is not array:
        array[:] = contiguous
