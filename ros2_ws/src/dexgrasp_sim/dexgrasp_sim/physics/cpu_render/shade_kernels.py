"""Colour images, and depth in millimetres, from the buffers that `draw_kernels.draw` has filled.

Light in colour images: one distant lamp (Lambert's law), a weak lamp at the camera so that no
visible side is black, and ambient light that is brighter from above than from below. No shadows.
Textures are functions of the point in the geom's frame, so no shape needs texture coordinates.
"""

import numpy as np

from dexgrasp_sim.kernels import inline, kernel
from dexgrasp_sim.physics.cpu_render.arrays import (
    BOX,
    CAPSULE,
    CHECKER,
    CYLINDER,
    MESH,
    PLAIN,
    PLANE,
    Frames,
    Geometry,
    Lens,
    Look,
)
from dexgrasp_sim.physics.cpu_render.vector_kernels import (
    SOURCES,
    Vector,
    along,
    combine,
    dot,
    times,
    vector,
)

_HEADLIGHT = 0.25  # brightness of the lamp at the camera, as a fraction of full brightness
_SINK = 0.02  # cells; textures are read this far below the surface, not on the boundaries of cells
_TINY = 1e-12


@kernel
def to_millimetres(
    depth: np.ndarray, near_m: float, far_m: float, out: np.ndarray, sources: int = SOURCES
) -> None:
    """Rounds depths [n, H, W] in m to int16 millimetres; 0 where not between near and far."""
    for env in range(depth.shape[0]):
        for row in range(depth.shape[1]):
            for column in range(depth.shape[2]):
                t = depth[env, row, column]
                valid = near_m <= t <= far_m
                out[env, row, column] = np.int16(t * 1000 + 0.5 if valid else 0.0)


@kernel
def shade(
    geometry: Geometry,
    model_of_env: np.ndarray,
    camera_axes: np.ndarray,
    lens: Lens,
    frames: Frames,
    look: Look,
    out: np.ndarray,
    sources: int = SOURCES,
) -> None:
    """Colours n environments.

    Args:
        geometry: The shapes.
        model_of_env: [n] int64, index into the models of `geometry`.
        camera_axes: [n, 3, 3] float64, right, down and forward axis in the base frame, as rows.
        lens: The camera's intrinsics.
        frames: As filled by `draw`.
        look: Colours and light.
        out: [n, 3, H, W] uint8, overwritten.
        sources: See `SOURCES`.
    """
    for env in range(len(model_of_env)):
        model = model_of_env[env]
        light = _to_camera(camera_axes[env], vector(look.light_direction[env]))
        up = _to_camera(camera_axes[env], (0.0, 0.0, 1.0))
        for row in range(out.shape[2]):
            y = (row - lens.center_v) / lens.focal
            for column in range(out.shape[3]):
                geom = frames.geom[env, row, column]
                color = vector(look.background[env])
                brightness = 1.0
                if geom >= 0:
                    camera, depth = frames.camera[env, geom], frames.depth[env, row, column]
                    ray = _to_geom(camera, ((column - lens.center_u) / lens.focal, y, 1.0))
                    point = along(vector(camera[3]), depth, ray)
                    kind = int(geometry.kind[model, geom])
                    if kind == MESH:
                        normal = vector(geometry.normals[frames.face[env, row, column]])
                    else:
                        normal = _normal(kind, vector(geometry.size[model, geom]), point)
                    facing = max(0.0, -dot(normal, ray)) / np.sqrt(dot(ray, ray))
                    lit = -dot(normal, _to_geom(camera, light))
                    high = dot(normal, _to_geom(camera, up))
                    brightness = _brightness(look.ambient[env], lit, high, facing)
                    cells_per_m = 1 / look.cell_m[env, geom]
                    contrast = _contrast(cells_per_m * depth / lens.focal, facing)
                    pattern = look.pattern[env, geom]
                    color = _mix(
                        vector(look.color[env, geom]),
                        vector(look.accent[env, geom]),
                        _accent_share(pattern, cells_per_m, point, normal, contrast),
                    )
                for channel in range(3):
                    level = min(255.0, 255.0 * brightness * color[channel] + 0.5)
                    out[env, channel, row, column] = np.uint8(level)


@inline
def _to_camera(axes: np.ndarray, direction: Vector) -> Vector:
    """A direction of the base frame in the camera frame."""
    return (
        dot(vector(axes[0]), direction),
        dot(vector(axes[1]), direction),
        dot(vector(axes[2]), direction),
    )


@inline
def _to_geom(camera: np.ndarray, direction: Vector) -> Vector:
    """A direction of the camera frame in the frame of the geom that has these camera axes."""
    return combine(direction, vector(camera[0]), vector(camera[1]), vector(camera[2]))


@inline
def _normal(kind: int, size: Vector, point: Vector) -> Vector:
    """The outward unit normal at a point of a geom's surface, in the geom's frame."""
    x, y, z = point
    if kind == PLANE:
        return 0.0, 0.0, 1.0
    if kind == BOX:
        return _cube_normal((x / size[0], y / size[1], z / size[2]))
    if kind == CYLINDER:
        if abs(z) / size[1] > np.sqrt(x * x + y * y) / size[0]:
            return 0.0, 0.0, np.sign(z)
        return _unit((x, y, 0.0))
    if kind == CAPSULE:
        return _unit((x, y, z - min(max(z, -size[1]), size[1])))
    return _unit((x / size[0] ** 2, y / size[1] ** 2, z / size[2] ** 2))


@inline
def _cube_normal(point: Vector) -> Vector:
    x, y, z = abs(point[0]), abs(point[1]), abs(point[2])
    if x >= y and x >= z:
        return np.sign(point[0]), 0.0, 0.0
    if y >= z:
        return 0.0, np.sign(point[1]), 0.0
    return 0.0, 0.0, np.sign(point[2])


@inline
def _unit(a: Vector) -> Vector:
    scale = 1 / np.sqrt(max(dot(a, a), _TINY))
    return times(a, (scale, scale, scale))


@inline
def _brightness(ambient: float, lit: float, high: float, facing: float) -> float:
    """Light that a surface sends to the camera, about 0 to 1.

    The arguments after `ambient` are cosines between its normal and the directions to the lamp,
    to the sky and to the camera.
    """
    sky = ambient * (0.75 + 0.25 * high)
    lamp = (1 - ambient) * (1 - _HEADLIGHT) * max(0.0, lit)
    return sky + lamp + _HEADLIGHT * facing


@inline
def _accent_share(
    pattern: int, cells_per_m: float, point: Vector, normal: Vector, contrast: float
) -> float:
    """Share of the second colour at a point of the geom's surface, 0 to 1."""
    if pattern == PLAIN:
        return 0.0
    cell = along(times(point, (cells_per_m, cells_per_m, cells_per_m)), -_SINK, normal)
    share = _checker(cell) if pattern == CHECKER else _noise(cell)
    return 0.5 + contrast * (share - 0.5)


@inline
def _contrast(cells_per_pixel: float, facing: float) -> float:
    """Factor on a pattern's contrast; patterns too fine for the pixels fade to their mean."""
    return min(1.0, 0.5 * facing / cells_per_pixel)


@inline
def _mix(a: Vector, b: Vector, share: float) -> Vector:
    return along(a, share, along(b, -1.0, a))


@inline
def _checker(cell: Vector) -> float:
    """0 and 1, alternating between neighbouring unit cubes."""
    return (np.floor(cell[0]) + np.floor(cell[1]) + np.floor(cell[2])) % 2


@inline
def _noise(cell: Vector) -> float:
    """0 to 1: random values at whole coordinates, smoothly interpolated (value noise)."""
    floor = (np.floor(cell[0]), np.floor(cell[1]), np.floor(cell[2]))
    x, y, z = _smooth(cell[0] - floor[0]), _smooth(cell[1] - floor[1]), _smooth(cell[2] - floor[2])
    i, j, k = int(floor[0]), int(floor[1]), int(floor[2])
    total = 0.0
    for corner in range(8):
        right, up, back = corner & 1, corner >> 1 & 1, corner >> 2
        weight = (x if right else 1 - x) * (y if up else 1 - y) * (z if back else 1 - z)
        total += weight * _random(i + right, j + up, k + back)
    return total


@inline
def _smooth(t: float) -> float:
    return t * t * (3 - 2 * t)


@inline
def _random(i: int, j: int, k: int) -> float:
    """A number from 0 to 1 that depends on three integers only."""
    bits = np.uint32(i * 374761393 + j * 668265263 + k * 1274126177)
    bits = np.uint32((bits ^ (bits >> np.uint32(13))) * np.uint32(1274126177))
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    return bits / 4294967295.0
