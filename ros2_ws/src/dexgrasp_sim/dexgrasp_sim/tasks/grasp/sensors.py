"""The world as the policy measures it: noisy and late, instead of as the physics knows it."""

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
    """Measurements of N environments, named as those of `PhysicsEngine`.

    The hand's points follow from the measured joint positions, as on a robot. Everything is a
    function of the module's state: looking twice gives the same.
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
        engine: What is measured.
        proprioception: For the hand's points.
        images: Image groups in use, which are delayed.
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

    def begin(self, ids: Tensor, episode: Tensor, difficulty: float) -> None:
        """Draws noise and ages of episodes; arguments as for `ObservationNoise.begin`."""
        self.noise.begin(ids, episode, difficulty)
        drawn = self.streams.uniform(Purpose.LATENCY, episode, 0, 2, ids)  # [K, 2]
        latency = self._latency
        self.joint_age[ids] = latency.joint_age_steps.sample_whole(difficulty, drawn[:, 0])
        self.image_age[ids] = latency.image_age_steps.sample_whole(difficulty, drawn[:, 1])

    def measure(
        self, episode: Tensor, step: Tensor, begun: Tensor, is_new_step: bool = True
    ) -> None:
        """Measures joints and objects.

        Args:
            episode: [N] int64, numbers of the episodes.
            step: [N] int64, control steps since the start of the episode.
            begun: [K] int64, environments whose episode has just begun.
            is_new_step: Call it so once after every control step. With False, because more
                episodes have begun, nothing changes for environments that are not in `begun`.
        """
        engine = self._engine
        true = Measured(
            engine.joint_position,
            engine.joint_velocity,
            engine.object_position,
            engine.object_rotation,
        )
        seen = self.noise.measure(true, episode, step)
        pose = torch.cat((seen.object_rotation, seen.object_position.unsqueeze(2)), dim=2)
        joints = torch.stack((seen.joint_position, seen.joint_velocity), dim=1)  # [N, 2, J]
        _take(self.joints, joints, begun, is_new_step)
        _take(self.object, pose, begun, is_new_step)
        self.expose()

    def delay_images(
        self, out: Mapping[str, Tensor], begun: Tensor, is_new_step: bool = True
    ) -> None:
        """Stores fresh images [N, ...] and puts the due ones in their place; see `measure`."""
        for name, line in self._lines():
            _take(line, out[name], begun, is_new_step)
        self.show_images(out)

    def show_images(self, out: Mapping[str, Tensor]) -> None:
        """Writes the images that are due."""
        for name, line in self._lines():
            out[name].copy_(line.read(self.image_age))

    def expose(self) -> None:
        """Makes the measurements current after the state has changed."""
        joints = self.joints.read(self.joint_age)
        pose = self.object.read(self.image_age)
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
