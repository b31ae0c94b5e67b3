"""Random colours, textures and light for the renderer's scenes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.physics.cpu_render.arrays import (
    AMBIENT_RANGE,
    CHECKER,
    NOISE,
    PLAIN,
    Look,
)
from dexgrasp_sim.physics.cpu_render.renderer import BatchRenderer
from dexgrasp_sim.random_streams import uniforms
from dexgrasp_sim.robot.rotation import rpy_to_matrix
from dexgrasp_sim.vision.image_config import LEAST_LEVEL, LookConfig

_PATTERNS = np.array([PLAIN, CHECKER, NOISE], np.int8)
_PER_SCENE, _PER_GEOM = 7, 9
"""Random numbers per scene and per colour of its geoms."""


class LookRandomizer:
    """Randomizes the look of several renderers of the same scenes, equally in all of them."""

    def __init__(self, config: LookConfig, renderers: Sequence[BatchRenderer]) -> None:
        """Args:
        config: The strengths.
        renderers: Newly built; their look is the one that is varied.
        """
        self._config = config
        self._renderers = renderers
        self._original = Look(*(array.copy() for array in renderers[0].look))
        self._group = np.array([_color_groups(colors) for colors in self._original.color])

    def draw(self, env_ids: Tensor, keys: Tensor) -> None:
        """Sets the look of K environments, drawn from their random streams.

        Args:
            env_ids: [K] int64, which environments.
            keys: [K] int64, their random streams; see `RandomStreams.keys`.
        """
        rows, geoms = env_ids.numpy(), self._group.shape[1]
        drawn = uniforms(keys, _PER_SCENE + _PER_GEOM * geoms).double().numpy()
        scene = drawn[:, :_PER_SCENE]  # [K, 7]
        colors = drawn[:, _PER_SCENE:].reshape(len(rows), geoms, _PER_GEOM)
        of_geom = np.take_along_axis(colors, self._group[rows][:, :, None], axis=1)  # [K, G, 9]
        original = Look(*(array[rows] for array in self._original))
        look = varied_look(self._config, original, scene, of_geom)
        for renderer in self._renderers:
            for array, values in zip(renderer.look, look, strict=True):
                array[rows] = values


def varied_look(config: LookConfig, look: Look, scene: np.ndarray, geom: np.ndarray) -> Look:
    """A variation of a look by random numbers.

    Args:
        config: The strengths.
        look: Original look of K environments with G geoms.
        scene: [K, 7], from 0 to 1: background, turns of the light, ambient light.
        geom: [K, G, 9], from 0 to 1: colour, accent, whether the pattern is new, which pattern,
            cell size.
    """
    has_new_pattern = geom[:, :, 6] < config.pattern
    new_pattern = _PATTERNS[(geom[:, :, 7] * len(_PATTERNS)).astype(np.int64)]
    turn = rpy_to_matrix(torch.from_numpy(config.light_rad * (2 * scene[:, 3:6] - 1))).numpy()
    ambient = look.ambient + config.ambient * (2 * scene[:, 6] - 1)
    limited = np.clip(ambient, *AMBIENT_RANGE) if config.ambient > 0 else ambient
    return Look(
        color=_mixed(look.color, geom[:, :, 0:3], config.color),
        accent=_mixed(look.accent, geom[:, :, 3:6], config.color),
        pattern=np.where(has_new_pattern, new_pattern, look.pattern),
        cell_m=look.cell_m * config.cell_factor ** (2 * geom[:, :, 8] - 1),
        light_direction=np.einsum("kij,kj->ki", turn, look.light_direction),
        ambient=limited,
        background=_mixed(look.background, scene[:, 0:3], config.background),
    )


def _mixed(colors: np.ndarray, drawn: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * colors + share * (LEAST_LEVEL + (1 - LEAST_LEVEL) * drawn)


def _color_groups(colors: np.ndarray) -> np.ndarray:
    """[G] int64: index of each geom's colour [G, 3] among the different colours."""
    return np.unique(colors, axis=0, return_inverse=True)[1].reshape(-1)
