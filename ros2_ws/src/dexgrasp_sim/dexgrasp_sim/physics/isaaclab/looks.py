"""Random colours of the environments' shapes, in the array that Newton's ray tracer reads."""

import torch
import warp as wp
from isaaclab_newton.physics import NewtonManager
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.random_streams import uniforms
from dexgrasp_sim.vision.image_config import LEAST_LEVEL, LookConfig


class SceneColors:
    """Colours of N environments. Shapes of equal colour get equal colours.

    Light, ambient light and background are one for all environments in Newton 1.6, and textures
    are fixed when the model is built, so these cannot be varied.
    """

    def __init__(self, look: LookConfig, num_envs: int) -> None:
        """Args:
        look: The strengths.
        num_envs: N.
        """
        self._look = look
        model = NewtonManager.get_model()
        color, world = model.shape_color, model.shape_world
        assert color is not None and world is not None
        self._shown = wp.to_torch(color)  # [S, 3]
        self._nominal, self._env = self._shown.clone(), wp.to_torch(world).long()
        different, self._group = torch.unique(self._nominal, dim=0, return_inverse=True)
        self._drawn = self._nominal.new_zeros(num_envs, len(different), 3)
        self._share = self._nominal.new_zeros(num_envs, 1)  # of the random colour

    def draw(self, env_ids: Tensor, keys: Tensor) -> None:
        """Varies the colours of environments; see `PhysicsEngine.randomize_looks`.

        Raises:
            ConfigError: The strengths ask for more than colours.
        """
        if self._look != LookConfig(color=self._look.color):
            raise ConfigError(
                "isaaclab randomises the colours of task.image.look alone, not patterns, light "
                "and background; set these to 0, or take task.physics.backend mujoco or "
                "mujoco_warp"
            )
        levels = uniforms(keys, 3 * self._drawn.shape[1]).view(-1, *self._drawn.shape[1:])
        self._drawn[env_ids] = LEAST_LEVEL + (1.0 - LEAST_LEVEL) * levels
        self._share[env_ids] = self._look.color
        share = torch.where(self._env.unsqueeze(1) < 0, 0.0, self._share[self._env])  # [S, 1]
        drawn = self._drawn[self._env, self._group]  # [S, 3]
        self._shown.copy_((1.0 - share) * self._nominal + share * drawn)
