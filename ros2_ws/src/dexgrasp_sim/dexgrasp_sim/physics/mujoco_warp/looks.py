"""Cameras, light and textures of the common model, and their random variation on the device.

The light is that of `cpu_render`: a distant lamp, a weak one at the camera, ambient light.
Patterns are textures here, so the images resemble those of `cpu_render` but are not the same.
"""

import mujoco
import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.physics.cpu_render.arrays import (
    AMBIENT_RANGE,
    NOISE,
    PLAIN,
    default_look,
)
from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.random_streams import uniforms
from dexgrasp_sim.robot.rotation import rpy_to_matrix
from dexgrasp_sim.vision.image_config import LEAST_LEVEL

CAMERAS = ("left", "right")
"""Names of the model's cameras; where they are is set before each image."""

_HEADLIGHT = 0.25
"""Brightness of the lamp at the camera, as in `cpu_render.shade_kernels`."""
_ACCENT = 0.72
"""Second colour of a pattern as a fraction of the first, as in `cpu_render.arrays`."""
_TINTS = 9
"""Different second colours; the first is the plain `_ACCENT`, the others are random."""
_CELLS, _CELL_PX = 8, 8
"""Cells along the side of a texture, pixels along the side of a cell."""
_RGB_ROLE = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
_PER_SCENE, _PER_GEOM = 7, 9
"""Random numbers per scene and per colour of its geoms, as in `cpu_render.looks`."""


def add_appearance(spec: mujoco.MjSpec, scene: Scene) -> None:
    """Adds cameras, a lamp, and a material for each geom, so that each has its own texture."""
    for name in CAMERAS:
        spec.worldbody.add_camera(name=name, fovy=scene.camera.fovy_deg)
    lamp = spec.worldbody.add_light(name="lamp", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    lamp.castshadow, lamp.specular = False, [0.0, 0.0, 0.0]
    headlight = spec.visual.headlight
    headlight.ambient, headlight.specular = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    headlight.diffuse = [_HEADLIGHT] * 3
    for index, pixels in enumerate(_textures(scene.look.color)):
        height, width, channels = pixels.shape
        texture = spec.add_texture(
            name=f"texture_{index}",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            width=width,
            height=height,
            nchannel=channels,
        )
        texture.data = pixels.tobytes()
    for geom in spec.geoms:
        # the colour of a material counts for geoms of MuJoCo's default colour only
        spec.add_material(name=geom.name, rgba=geom.rgba, texuniform=True)
        geom.material = geom.name


class DeviceLooks:
    """Colours, textures and light of N environments, in the arrays that the ray tracer reads.

    Attributes:
        background: [N, 3] float32, colour where nothing is seen.
    """

    def __init__(self, scene: Scene, model: mujoco.MjModel, arrays: dict[str, Tensor]) -> None:
        """Args:
        scene: Has the strengths.
        model: The common model.
        arrays: Fields of the model on the device, each with N rows: geom_rgba, mat_texid,
            mat_texrepeat, light_dir, light_diffuse and light_ambient.
        """
        self._config, self._arrays = scene.look, arrays
        rgba = arrays["geom_rgba"]
        self.device, count = rgba.device, len(rgba)
        look = default_look([model], np.zeros(1, np.int64), scene.camera)
        self._color = rgba[:, :, :3].clone()  # [N, G, 3]
        self._groups = self._on_device(_color_groups(self._color.cpu().numpy()))  # [N, G]
        self._pattern = self._on_device(look.pattern[0].astype(np.int64))  # [G]
        self._cell_m = self._on_device(look.cell_m[0])  # [G]
        self._light = self._on_device(look.light_direction[0])  # [3]
        self._ambient = float(look.ambient[0])
        self._background = self._on_device(look.background[0])  # [3]
        self._materials = self._on_device(model.geom_matid.astype(np.int64))  # [G]
        self.background = self._background.repeat(count, 1)  # [N, 3]
        everywhere = torch.arange(count, device=self.device)
        tint = torch.zeros_like(self._groups)
        pattern, cell_m = self._pattern.expand(count, -1), self._cell_m.expand(count, -1)
        self._set_textures(everywhere, pattern, tint, cell_m)
        ambient = torch.full((count,), self._ambient, device=self.device)
        self._set_light(everywhere, self._light.expand(count, -1), ambient)

    def draw(self, env_ids: Tensor, keys: Tensor) -> None:
        """Varies the looks of environments; see `PhysicsEngine.randomize_looks`."""
        config, geoms = self._config, len(self._pattern)
        drawn = uniforms(keys, _PER_SCENE + _PER_GEOM * geoms)  # [K, 7 + 9 G]
        scene = drawn[:, :_PER_SCENE]
        colors = drawn[:, _PER_SCENE:].reshape(-1, geoms, _PER_GEOM)  # [K, G, 9]
        group = self._groups[env_ids].unsqueeze(2).expand(-1, -1, _PER_GEOM)  # [K, G, 9]
        geom = colors.gather(1, group)
        color = _mixed(self._color[env_ids], geom[:, :, :3], config.color)
        self._arrays["geom_rgba"][env_ids, :, :3] = color
        other = (geom[:, :, 7] * 3).long()
        pattern = torch.where(geom[:, :, 6] < config.pattern, other, self._pattern)  # [K, G]
        tint = 1 + (geom[:, :, 3] * (_TINTS - 1)).long() if config.color > 0 else 0 * other
        cell_m = self._cell_m * config.cell_factor ** (2 * geom[:, :, 8] - 1)
        self._set_textures(env_ids, pattern, tint, cell_m)
        turn = rpy_to_matrix(config.light_rad * (2 * scene[:, 3:6] - 1))  # [K, 3, 3]
        ambient = self._ambient + config.ambient * (2 * scene[:, 6] - 1)
        if config.ambient > 0:
            ambient = ambient.clamp(*AMBIENT_RANGE)
        self._set_light(env_ids, (turn * self._light).sum(2), ambient)
        background = self._background.expand(len(env_ids), -1)
        self.background[env_ids] = _mixed(background, scene[:, :3], config.background)

    def _set_textures(
        self, env_ids: Tensor, pattern: Tensor, tint: Tensor, cell_m: Tensor
    ) -> None:
        texture = torch.where(pattern == PLAIN, -1, 2 * tint + (pattern == NOISE).long())  # [K, G]
        where = env_ids.unsqueeze(1), self._materials
        self._arrays["mat_texid"][(*where, _RGB_ROLE)] = texture.int()
        # MuJoCo repeats a uniform texture every 2 m / repeat
        repeat = 2.0 / (_CELLS * cell_m)
        self._arrays["mat_texrepeat"][where] = repeat.unsqueeze(2).expand(-1, -1, 2)

    def _set_light(self, env_ids: Tensor, direction: Tensor, ambient: Tensor) -> None:
        lamp = (1 - ambient) * (1 - _HEADLIGHT)
        self._arrays["light_dir"][env_ids, 0] = direction
        self._arrays["light_ambient"][env_ids, 0] = ambient.unsqueeze(1).expand(-1, 3)
        self._arrays["light_diffuse"][env_ids, 0] = lamp.unsqueeze(1).expand(-1, 3)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _mixed(colors: Tensor, drawn: Tensor, share: float) -> Tensor:
    return (1 - share) * colors + share * (LEAST_LEVEL + (1 - LEAST_LEVEL) * drawn)


def _color_groups(colors: np.ndarray) -> np.ndarray:
    """[N, G] int64: index of each geom's colour [N, G, 3] among the environment's colours."""
    different, of_env = np.unique(colors, axis=0, return_inverse=True)
    groups = [np.unique(one, axis=0, return_inverse=True)[1].reshape(-1) for one in different]
    return np.stack(groups)[of_env.reshape(-1)]


def _textures(color_share: float) -> list[np.ndarray]:
    """[H, W, 3] uint8 for each tint: checkered, then cloudy; factors on a geom's colour."""
    generator = np.random.default_rng(0)
    drawn = LEAST_LEVEL + (1 - LEAST_LEVEL) * generator.random((_TINTS - 1, 3))
    tints = np.concatenate([np.full((1, 3), _ACCENT), _ACCENT + color_share * (drawn - _ACCENT)])
    pixel = np.arange(_CELLS * _CELL_PX)
    cell = pixel // _CELL_PX
    checker = (cell[:, None] + cell[None, :]) % 2
    cloudy = _clouds(generator.random((_CELLS, _CELLS)), pixel / _CELL_PX)
    images = []
    for tint in tints:
        for share in (checker, cloudy):
            images.append(np.uint8(255 * (1 + share[:, :, None] * (tint - 1)) + 0.5))
    return images


def _clouds(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """[P, P]: periodic values at whole coordinates, smoothly interpolated (value noise)."""
    low, t = at.astype(np.int64), at % 1.0
    weight = t * t * (3 - 2 * t)
    high = (low + 1) % len(values)
    rows = (1 - weight)[:, None] * values[low] + weight[:, None] * values[high]  # [P, cells]
    return (1 - weight) * rows[:, low] + weight * rows[:, high]
