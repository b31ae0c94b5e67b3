"""Measurements of robot and object with noise and delay."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.latency import DelayLine
from dexgrasp_sim.tasks.grasp.observation_noise import Measured, ObservationNoise


class Sensors(nn.Module):
    """Measurements of N environments, under the names of `PhysicsEngine`.

    The hand's points are computed from the measured joint positions, as on a robot. Measurements
    change only in `measure` and `expose`: reading them twice gives the same.
    """

    joint_age: Tensor
    image_age: Tensor

    def __init__(
        self,
        config: GraspConfig,
        engine: PhysicsEngine,
        proprioception: Proprioception,
        images: tuple[TensorSpec, ...],
        streams: RandomStreams,
    ) -> None:
        """Args:
        config: Noise and latency.
        engine: Has the exact state.
        proprioception: Computes the hand's points.
        images: Specs of the image groups in use.
        streams: Of the environments.
        """
        super().__init__()
        self._engine, self._proprioception = engine, proprioception
        self._latency, self.streams = config.latency, streams
        (count, joints), device = engine.joint_position.shape, engine.device
        self.noise = ObservationNoise(config.observation_noise, streams, joints)
        ages = torch.zeros(count, dtype=torch.int64, device=device)
        self.register_buffer("joint_age", ages)
        self.register_buffer("image_age", ages.clone())
        oldest_joints = round(config.latency.joint_age_steps.largest)
        oldest_image = round(config.latency.image_age_steps.largest)
        self.joints = DelayLine((count, 2, joints), torch.float32, oldest_joints, device)
        self.object = DelayLine((count, 3, 4), torch.float32, oldest_image, device)
        self.images = nn.ModuleDict(
            {
                spec.name: DelayLine((count, *spec.shape), spec.torch_dtype, oldest_image, device)
                for spec in images
                if oldest_image > 0
            }
        )
        self.expose()

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> tuple[Tensor, ...]:
        """Noise and ages of episodes; see `EpisodePart`."""
        drawn = self.streams.uniform(Purpose.LATENCY, episode, 0, 2, ids)  # [K, 2]
        latency = self._latency
        return (
            *self.noise.draw(ids, episode, difficulty),
            latency.joint_age_steps.sample_whole(difficulty, drawn[:, 0]),
            latency.image_age_steps.sample_whole(difficulty, drawn[:, 1]),
        )

    def take(
        self, ids: Tensor, width: Tensor, bias: Tensor, joint_age: Tensor, image_age: Tensor
    ) -> None:
        """Takes what `draw` gave for environments [K]."""
        self.noise.take(ids, width, bias)
        self.joint_age[ids], self.image_age[ids] = joint_age, image_age

    def measure(
        self, episode: Tensor, step: Tensor, begun: Tensor, is_new_step: bool = True
    ) -> None:
        """Measures joints and objects.

        Args:
            episode: [N] int64, numbers of the episodes.
            step: [N] int64, control steps since the start of the episode.
            begun: [K] int64, environments whose episode has just begun.
            is_new_step: True once after every control step. With False only the environments in
                `begun` are measured, as when further episodes begin in the same step.
        """
        engine = self._engine
        true = Measured(
            engine.joint_position,
            engine.joint_velocity,
            engine.object_position,
            engine.object_rotation,
        )
        seen = self.noise.measure(true, episode, step)
        pose = torch.cat(
            (seen.object_rotation, seen.object_position.unsqueeze(2)), dim=2
        )  # [N, 3, 4]
        joints = torch.stack((seen.joint_position, seen.joint_velocity), dim=1)  # [N, 2, J]
        _take(self.joints, joints, begun, is_new_step)
        _take(self.object, pose, begun, is_new_step)
        self.expose()

    def delay_images(
        self, out: Mapping[str, Tensor], begun: Tensor, is_new_step: bool = True
    ) -> None:
        """Stores new images [N, ...] and overwrites them with the delayed ones; see `measure`."""
        for name, line in self._lines():
            _take(line, out[name], begun, is_new_step)
        self.show_images(out)

    def show_images(self, out: Mapping[str, Tensor]) -> None:
        """Writes the delayed images [N, ...] of every image group in use."""
        for name, line in self._lines():
            out[name].copy_(line.read(self.image_age))

    def expose(self) -> None:
        """Updates the measurements from the delay lines, as after a restore."""
        joints = self.joints.read(self.joint_age)  # [N, 2, J]
        pose = self.object.read(self.image_age)  # [N, 3, 4]
        self.joint_position, self.joint_velocity = joints[:, 0], joints[:, 1]
        self.object_rotation, self.object_position = pose[:, :, :3], pose[:, :, 3]
        points = self._proprioception.hand_points(self.joint_position)  # [N, F + 1, 3]
        self.hand_points = points
        self.fingertip_position, self.grasp_center_position = points[:, :-1], points[:, -1]

    def _lines(self) -> list[tuple[str, DelayLine]]:
        return [(name, line) for name, line in self.images.items() if isinstance(line, DelayLine)]


def _take(line: DelayLine, sample: Tensor, begun: Tensor, is_new_step: bool) -> None:
    if is_new_step:
        line.push(sample)
    line.fill(begun, sample[begun])
