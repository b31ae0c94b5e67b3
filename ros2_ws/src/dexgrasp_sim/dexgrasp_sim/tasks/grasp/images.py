"""The image observations: what the engine draws, made as imperfect as the config asks for."""

import numpy as np
from torch import Tensor

from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses, jittered_poses
from dexgrasp_sim.vision.depth_noise import DepthNoise
from dexgrasp_sim.vision.image_random import Purpose, stream_keys
from dexgrasp_sim.vision.rgb_augmentation import RgbAugmentation

_NO_EPISODE = -1


class Images:
    """Image observations of N environments.

    What they show depends on the physics, the seed, the environment's global index, its episode
    and its step only, so that there is no state to save.
    """

    def __init__(
        self, config: GraspConfig, engine: PhysicsEngine, seed: int, env_offset: int
    ) -> None:
        """Args:
        config: Cameras and `image`.
        engine: Draws the images.
        seed: Of the run.
        env_offset: Global index of the engine's first environment.
        """
        self._config, self._engine, self._seed = config, engine, seed
        self._env = np.arange(engine.num_envs) + env_offset
        self._depth_noise = DepthNoise(config.image.depth_noise, config.camera, seed, self._env)
        self._rgb = RgbAugmentation(config.image.rgb, seed, self._env)
        self._look_of_episode = np.full(engine.num_envs, _NO_EPISODE)

    def write_depth(self, episode: Tensor, step: Tensor, out: Tensor, clean: bool = False) -> None:
        """Writes the `depth` group.

        Args:
            episode: [N] int64, number of each environment's episode.
            step: [N] int64, step within it.
            out: [N, H, W] int16 millimetres, 0 = invalid.
            clean: Leave out the noise, not the jitter of the camera.
        """
        self._engine.render_depth(out, self._camera_poses(episode.numpy()))
        if not clean:
            self._depth_noise.apply(out.numpy(), episode.numpy(), step.numpy())

    def write_stereo_rgb(
        self, episode: Tensor, step: Tensor, out: Tensor, clean: bool = False
    ) -> None:
        """Writes the `stereo_rgb` group.

        Args:
            episode: [N] int64, number of each environment's episode.
            step: [N] int64, step within it.
            out: [N, 2, 3, H, W] uint8, left and right.
            clean: Leave out the augmentation, not the scene's look and the cameras' jitter.
        """
        self._renew_looks(episode.numpy())
        self._engine.render_stereo_rgb(out, self._camera_poses(episode.numpy()))
        if not clean:
            self._rgb.apply(out.numpy(), episode.numpy(), step.numpy())

    def _camera_poses(self, episode: np.ndarray) -> CameraPoses | None:
        config = self._config
        jitter = config.image.camera_jitter
        if not jitter.enabled:
            return None
        return jittered_poses(
            jitter, config.camera, config.stereo_baseline_m, self._seed, self._env, episode
        )

    def _renew_looks(self, episode: np.ndarray) -> None:
        """Draws the looks of the environments that are in another episode than before."""
        if not self._config.image.look.enabled:
            return
        ids = np.flatnonzero(episode != self._look_of_episode)
        if len(ids):
            keys = stream_keys(Purpose.LOOK, self._seed, self._env[ids], episode[ids])
            self._engine.randomize_looks(ids, keys)
            self._look_of_episode[ids] = episode[ids]
