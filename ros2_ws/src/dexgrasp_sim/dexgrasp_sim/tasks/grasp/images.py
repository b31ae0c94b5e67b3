"""The image observations: images of the engine with the errors that the config asks for."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera_jitter import CameraJitter
from dexgrasp_sim.vision.image_errors import ImageErrors


class Images(nn.Module):
    """Image observations of N environments.

    They depend only on the physics, the seed, the environment's global index, its episode and its
    step. So there is no state to save; after a restore, call `begin` for the restored episodes.

    Attributes:
        episode: [N] int64, number of each environment's episode, as given to `begin`.
    """

    episode: Tensor

    def __init__(
        self,
        config: GraspConfig,
        engine: PhysicsEngine,
        streams: RandomStreams,
        groups: Collection[str],
    ) -> None:
        """Args:
        config: Cameras and `image`.
        engine: Draws the images.
        streams: Of the engine's environments.
        groups: All observation groups of the environments.
        """
        super().__init__()
        self._engine = engine
        self._moves_depth = config.image.camera_jitter.moves_depth
        self._has_looks = config.image.look.enabled and "stereo_rgb" in groups
        self.streams = streams
        self.errors = ImageErrors(config.image, config.camera, streams)
        self.cameras = CameraJitter(
            config.image.camera_jitter, config.camera, config.stereo_baseline_m, streams
        )
        episode = torch.zeros_like(streams.env)
        self.register_buffer("episode", episode, persistent=False)

    def begin(self, ids: Tensor, episode: Tensor) -> None:
        """Draws what stays for an episode: camera poses and the look of the scene.

        Args:
            ids: [K] int64, the environments whose episode begins.
            episode: [K] int64, numbers of these episodes.
        """
        self.take(ids, *self.draw(ids, episode))

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float = 0.0) -> tuple[Tensor, ...]:
        """What `take` needs; see `EpisodePart`. Nothing depends on the difficulty."""
        del difficulty
        keys = (self.streams.keys(Purpose.LOOK, episode, 0, ids),) if self._has_looks else ()
        return (episode, *keys, *self.cameras.draw(ids, episode))

    def take(self, ids: Tensor, episode: Tensor, *drawn: Tensor) -> None:
        """Takes what `draw` gave for environments [K]."""
        self.episode[ids] = episode
        if self._has_looks:
            self._engine.randomize_looks(ids, drawn[0])
        self.cameras.take(ids, *drawn[self._has_looks :])

    def write_depth(self, step: Tensor, out: Tensor, clean: bool = False) -> None:
        """Writes the `depth` group.

        Args:
            step: [N] int64, step within the episode.
            out: [N, H, W] int16 millimetres, 0 = invalid.
            clean: Without noise, but with the camera jitter if that moves it.
        """
        self._engine.render_depth(out, self.cameras.poses if self._moves_depth else None)
        if not clean:
            self.errors.add_to_depth(out, self.episode, step)

    def write_stereo_rgb(self, step: Tensor, out: Tensor, clean: bool = False) -> None:
        """Writes the `stereo_rgb` group.

        Args:
            step: [N] int64, step within the episode.
            out: [N, 2, 3, H, W] uint8, left and right.
            clean: Without augmentation, but with the look of the scene and the camera jitter.
        """
        self._engine.render_stereo_rgb(out, self.cameras.poses)
        if not clean:
            self.errors.add_to_rgb(out, self.episode, step)
