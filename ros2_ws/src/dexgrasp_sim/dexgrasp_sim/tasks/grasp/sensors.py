"""The world as the policy measures it: noisy and late, instead of as the physics knows it."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.latency import DelayLine, draw_steps
from dexgrasp_sim.tasks.grasp.observation_noise import ObservationNoise

_IMAGES = ("depth", "stereo_rgb")


class Sensors:
    """Measurements of N environments, named as those of `PhysicsEngine`.

    The hand's points follow from the measured joint positions, as on a robot. Everything is a
    function of what `state_dict` holds: looking twice gives the same.
    """

    def __init__(
        self,
        config: GraspConfig,
        engine: PhysicsEngine,
        proprioception: Proprioception,
        specs: tuple[TensorSpec, ...],
    ) -> None:
        """Args:
        config: Noise and latency.
        engine: What is measured.
        proprioception: For the hand's points.
        specs: The observation groups in use; images among them are delayed.
        """
        self._engine, self._proprioception = engine, proprioception
        self._latency = config.latency
        count, joints = engine.joint_position.shape
        self.noise = ObservationNoise(config.observation_noise, count, joints)
        self.joint_age = torch.zeros(count, dtype=torch.int64)
        self.image_age = torch.zeros(count, dtype=torch.int64)
        oldest_joints = round(config.latency.joint_age_steps.largest)
        oldest_image = round(config.latency.image_age_steps.largest)
        self._joints = DelayLine((count, 2, joints), torch.float32, oldest_joints)
        self._object = DelayLine((count, 3, 4), torch.float32, oldest_image)
        self._images = {
            spec.name: DelayLine((count, *spec.shape), spec.torch_dtype, oldest_image)
            for spec in specs
            if spec.name in _IMAGES and oldest_image > 0
        }
        self._expose()

    def begin(self, env: int, difficulty: float, generator: np.random.Generator) -> None:
        """Draws the episode's noise and ages of one environment."""
        self.noise.begin(env, difficulty, generator)
        latency = self._latency
        self.joint_age[env] = draw_steps(latency.joint_age_steps, difficulty, generator)
        self.image_age[env] = draw_steps(latency.image_age_steps, difficulty, generator)

    def measure(self, step: Tensor, begun: Tensor, again: bool = False) -> None:
        """Measures joints and objects; call once after every control step.

        Args:
            step: [N] int64, control steps since the start of the episode.
            begun: [K] int64, environments whose episode has just begun.
            again: For the second time after this step, because more episodes have begun: nothing
                changes for the environments that are not among `begun`.
        """
        engine = self._engine
        joints = self.noise.joints(engine.joint_position, engine.joint_velocity, step)
        position, rotation = self.noise.object_pose(
            engine.object_position, engine.object_rotation, step
        )
        pose = torch.cat((rotation, position.unsqueeze(2)), dim=2)
        _take(self._joints, torch.stack(joints, dim=1), begun, again)
        _take(self._object, pose, begun, again)
        self._expose()

    def delay_images(self, out: Mapping[str, Tensor], begun: Tensor, again: bool = False) -> None:
        """Puts fresh images [N, ...] in store and the due ones in their place."""
        for name, line in self._images.items():
            _take(line, out[name], begun, again)
        self.show_images(out)

    def show_images(self, out: Mapping[str, Tensor]) -> None:
        """Writes the images that are due."""
        for name, line in self._images.items():
            out[name].copy_(line.read(self.image_age))

    def _expose(self) -> None:
        joints = self._joints.read(self.joint_age)
        pose = self._object.read(self.image_age)
        self.joint_position, self.joint_velocity = joints[:, 0], joints[:, 1]
        self.object_rotation, self.object_position = pose[:, :, :3], pose[:, :, 3]
        points = self._proprioception.hand_points(self.joint_position)
        self.fingertip_position, self.grasp_center_position = points[:, :-1], points[:, -1]

    def _parts(self) -> dict[str, ObservationNoise | DelayLine]:
        return {
            "noise": self.noise,
            "joints": self._joints,
            "object": self._object,
            **self._images,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that later measurements depend on."""
        state = {"joint_age": self.joint_age.clone(), "image_age": self.image_age.clone()}
        for name, part in self._parts().items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`; `show_images` rewrites the images."""
        self.joint_age.copy_(state["joint_age"])
        self.image_age.copy_(state["image_age"])
        for name, part in self._parts().items():
            inner = {k.removeprefix(f"{name}."): v for k, v in state.items()}
            part.load_state_dict(inner)
        self._expose()


def _take(line: DelayLine, sample: Tensor, begun: Tensor, again: bool) -> None:
    if not again:
        line.push(sample)
    line.fill(begun, sample[begun])
