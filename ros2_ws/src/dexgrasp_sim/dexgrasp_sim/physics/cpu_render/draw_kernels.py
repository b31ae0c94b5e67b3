"""Depth images of many environments on the CPU, compiled with numba.

Every geom is drawn into a z-buffer: for each pixel of a rectangle that contains its image, the ray
of the pixel is intersected with the geom. Camera and rays are first transformed into a frame in
which the geom is a unit shape, which keeps the formulas short; the ray parameter, which is the
depth along the viewing axis, does not change. Meshes are drawn triangle by triangle. Surfaces are
visible from outside only, as in MuJoCo's own renderer.

The camera frame in this module is ROS' optical frame: x right, y down, z forward. The ray of pixel
(row, column) is ((column - center_u) / focal, (row - center_v) / focal, 1).
"""

from collections.abc import Callable

import numpy as np

from dexgrasp_sim.kernels import inline, kernel
from dexgrasp_sim.physics.cpu_render.arrays import (
    BOX,
    CAPSULE,
    CYLINDER,
    HIDDEN,
    MESH,
    NO_HIT,
    PLANE,
    Canvas,
    Frames,
    Geometry,
    Lens,
    Poses,
)
from dexgrasp_sim.physics.cpu_render.vector_kernels import (
    SOURCES,
    Vector,
    along,
    combine,
    cross,
    dot,
    times,
    vector,
)

CameraInGeom = tuple[Vector, Vector, Vector, Vector]  # right, down, forward axis and position
Window = tuple[int, int, int, int]  # first column, last column + 1, first row, last row + 1

_NEAREST = 1e-3  # m; with nearer points the window is the whole image
_TINY = 1e-12
_SLACK_PX = 1e-3  # added to windows against rounding


@kernel
def draw(
    geometry: Geometry,
    model_of_env: np.ndarray,
    poses: Poses,
    lens: Lens,
    frames: Frames,
    sources: int = SOURCES,
) -> None:
    """Draws all visible geoms of n environments into `frames`.

    Args:
        geometry: The shapes.
        model_of_env: [n] int64, index into the M models of `geometry`.
        poses: Poses of geoms and cameras; a geom whose pose is not finite is left out.
        lens: The camera's intrinsics.
        frames: Overwritten; may have room for more than n environments.
        sources: See `SOURCES`.
    """
    for env in range(len(model_of_env)):
        frames.depth[env] = NO_HIT
        frames.geom[env] = -1
        canvas = Canvas(frames.depth[env], frames.geom[env], frames.face[env])
        model = model_of_env[env]
        for geom in range(geometry.kind.shape[1]):
            if geometry.kind[model, geom] != HIDDEN:
                camera = _camera_in_geom(poses, env, geom)
                for row in range(4):
                    for column in range(3):
                        frames.camera[env, geom, row, column] = camera[row][column]
                _draw_geom(geometry, model, geom, camera, lens, canvas)


@inline
def _camera_in_geom(poses: Poses, env: int, geom: int) -> CameraInGeom:
    """The camera's axes and position in a geom's frame."""
    # a product with the transposed rotation is a weighted sum of its rows
    x = vector(poses.geom_rotation[env, geom, 0])
    y = vector(poses.geom_rotation[env, geom, 1])
    z = vector(poses.geom_rotation[env, geom, 2])
    position = vector(poses.camera_position[env])
    offset = along(position, -1.0, vector(poses.geom_position[env, geom]))
    return (
        combine(vector(poses.camera_axes[env, 0]), x, y, z),
        combine(vector(poses.camera_axes[env, 1]), x, y, z),
        combine(vector(poses.camera_axes[env, 2]), x, y, z),
        combine(offset, x, y, z),
    )


@inline
def _draw_geom(
    geometry: Geometry, model: int, geom: int, camera: CameraInGeom, lens: Lens, canvas: Canvas
) -> None:
    kind = geometry.kind[model, geom]
    size = vector(geometry.size[model, geom])
    if kind == PLANE:
        _draw_plane(size, camera, _whole(canvas), lens, geom, canvas)
        return
    if kind == CAPSULE:
        radius, half_length = size[0], size[1]
        window = _capsule_window(camera, radius, half_length, lens, _whole(canvas))
        unit = _scaled(camera, (1 / radius, 1 / radius, 1 / radius))
        _draw_capsule((half_length / radius, 0.0, 0.0), unit, window, lens, geom, canvas)
        return
    center = vector(geometry.box_center[model, geom])
    extent = vector(geometry.box_extent[model, geom])
    window = _box_window(camera, center, extent, lens, _whole(canvas))
    unit = _scaled(camera, (1 / extent[0], 1 / extent[1], 1 / extent[2]))
    if kind == BOX:
        _draw_box(size, unit, window, lens, geom, canvas)
    elif kind == CYLINDER:
        _draw_cylinder(size, unit, window, lens, geom, canvas)
    elif kind == MESH:
        faces = (geometry.first_face[model, geom], geometry.last_face[model, geom])
        _draw_mesh(geometry, faces, camera, window, lens, geom, canvas)
    else:
        _draw_sphere(size, unit, window, lens, geom, canvas)


@inline
def _hit_plane(size: Vector, origin: Vector, ray: Vector) -> float:
    """The plane z = 0, seen from above; half sizes x and y, 0 for infinite."""
    if ray[2] >= 0 or origin[2] <= 0:
        return NO_HIT
    t = -origin[2] / ray[2]
    inside_x = size[0] <= 0 or abs(origin[0] + t * ray[0]) <= size[0]
    inside_y = size[1] <= 0 or abs(origin[1] + t * ray[1]) <= size[1]
    return t if inside_x and inside_y else NO_HIT


@inline
def _hit_box(_size: Vector, origin: Vector, ray: Vector) -> float:
    """The cube from -1 to 1, by the slab method."""
    enter, leave = 0.0, NO_HIT
    for k in range(3):
        inverse = 1 / (ray[k] if abs(ray[k]) > _TINY else _TINY)
        a, b = (-1 - origin[k]) * inverse, (1 - origin[k]) * inverse
        enter, leave = max(enter, min(a, b)), min(leave, max(a, b))
    return enter if 0 < enter <= leave else NO_HIT


@inline
def _hit_sphere(_size: Vector, origin: Vector, ray: Vector) -> float:
    """The unit sphere.

    Measured from the ray's closest point, which keeps precision for a small distant sphere:
    Haines et al., Precision Improvements for Ray/Sphere Intersection, Ray Tracing Gems (2019).
    """
    ray_squared = dot(ray, ray)
    closest = -dot(origin, ray) / ray_squared
    nearest = along(origin, closest, ray)
    inside = 1 - dot(nearest, nearest)
    t = closest - np.sqrt(max(inside, 0.0) / ray_squared)
    return t if inside >= 0 and t > 0 else NO_HIT


@inline
def _hit_side(origin: Vector, ray: Vector) -> tuple[float, float]:
    """The infinite unit cylinder about z: ray parameter at entry, and a number < 0 for a miss."""
    ray_squared = max(ray[0] * ray[0] + ray[1] * ray[1], _TINY)
    closest = -(origin[0] * ray[0] + origin[1] * ray[1]) / ray_squared
    x, y = origin[0] + closest * ray[0], origin[1] + closest * ray[1]
    inside = 1 - x * x - y * y
    return closest - np.sqrt(max(inside, 0.0) / ray_squared), inside


@inline
def _hit_cylinder(_size: Vector, origin: Vector, ray: Vector) -> float:
    """The unit cylinder about z, from z = -1 to 1."""
    side, inside = _hit_side(origin, ray)
    if inside < 0:
        return NO_HIT
    if side > 0 and abs(origin[2] + side * ray[2]) <= 1:
        return side
    toward = ray[2] if abs(ray[2]) > _TINY else _TINY
    cap = ((-1 if toward > 0 else 1) - origin[2]) / toward
    x, y = origin[0] + cap * ray[0], origin[1] + cap * ray[1]
    return cap if cap > 0 and x * x + y * y <= 1 else NO_HIT


@inline
def _hit_capsule(size: Vector, origin: Vector, ray: Vector) -> float:
    """Unit radius about z, spheres centred at z = ± size[0].

    A capsule lies inside its infinite cylinder, so a ray that does not meet the straight part
    can only meet the sphere at the end beyond which it enters the cylinder.
    """
    side, inside = _hit_side(origin, ray)
    if inside < 0:
        return NO_HIT
    z = origin[2] + side * ray[2]
    if abs(z) <= size[0]:
        return side if side > 0 else NO_HIT
    end = size[0] if z > 0 else -size[0]
    return _hit_sphere(size, (origin[0], origin[1], origin[2] - end), ray)


def _drawer(hit: Callable[[Vector, Vector, Vector], float]) -> Callable[..., None]:
    """Compiles a function that draws the shape with intersection `hit(size, position, ray)`."""

    @inline
    def draw_shape(
        size: Vector,
        camera: CameraInGeom,
        window: Window,
        lens: Lens,
        geom: int,
        canvas: Canvas,
    ) -> None:
        right, down, forward, position = camera
        first_column, end_column, first_row, end_row = window
        for row in range(first_row, end_row):
            row_ray = along(forward, (row - lens.center_v) / lens.focal, down)
            depth_row, geom_row = canvas.depth[row], canvas.geom[row]
            for column in range(first_column, end_column):
                ray = along(row_ray, (column - lens.center_u) / lens.focal, right)
                t = hit(size, position, ray)
                if t < depth_row[column]:
                    depth_row[column] = t
                    geom_row[column] = geom

    return draw_shape


_draw_plane = _drawer(_hit_plane)
_draw_box = _drawer(_hit_box)
_draw_sphere = _drawer(_hit_sphere)
_draw_cylinder = _drawer(_hit_cylinder)
_draw_capsule = _drawer(_hit_capsule)


@inline
def _draw_mesh(
    geometry: Geometry,
    faces: tuple[int, int],
    camera: CameraInGeom,
    window: Window,
    lens: Lens,
    geom: int,
    canvas: Canvas,
) -> None:
    """Draws triangles with edge functions of the ray, which need no clipping at the camera.

    A ray d meets triangle abc where d·(b×c), d·(c×a) and d·(a×b) have one sign; their sum is
    a·(b×c) / t (Olano and Greer, Triangle Scan Conversion using 2D Homogeneous Coordinates, 1997).
    """
    for face in range(faces[0], faces[1]):
        to_camera = along(camera[3], -1.0, vector(geometry.triangles[face, 0]))
        if dot(vector(geometry.normals[face]), to_camera) <= 0:
            continue
        a = _in_camera(camera, vector(geometry.triangles[face, 0]))
        b = _in_camera(camera, vector(geometry.triangles[face, 1]))
        c = _in_camera(camera, vector(geometry.triangles[face, 2]))
        left, end_column, top, end_row = _triangle_window(a, b, c, window, lens)
        edge_a, edge_b, edge_c = cross(c, b), cross(a, c), cross(b, a)
        volume = dot(a, edge_a)  # positive: the triangle is seen from outside
        for row in range(top, end_row):
            y = (row - lens.center_v) / lens.focal
            for column in range(left, end_column):
                ray = ((column - lens.center_u) / lens.focal, y, 1.0)
                wa, wb, wc = dot(ray, edge_a), dot(ray, edge_b), dot(ray, edge_c)
                if min(wa, wb, wc) >= -_TINY and wa + wb + wc > _TINY:
                    t = volume / (wa + wb + wc)
                    if 0 < t < canvas.depth[row, column]:
                        canvas.depth[row, column] = t
                        canvas.geom[row, column] = geom
                        canvas.face[row, column] = face


@inline
def _whole(canvas: Canvas) -> Window:
    """All pixels."""
    return 0, canvas.depth.shape[1], 0, canvas.depth.shape[0]


@inline
def _triangle_window(a: Vector, b: Vector, c: Vector, window: Window, lens: Lens) -> Window:
    """The part of a window where a triangle in the camera frame may be seen."""
    if min(a[2], b[2], c[2]) < _NEAREST:
        return window
    xs = (a[0] / a[2], b[0] / b[2], c[0] / c[2])
    ys = (a[1] / a[2], b[1] / b[2], c[1] / c[2])
    return _pixels(min(xs), max(xs), min(ys), max(ys), lens, window)


@inline
def _box_window(
    camera: CameraInGeom, center: Vector, extent: Vector, lens: Lens, whole: Window
) -> Window:
    """Pixels that may see a box given by centre and half sizes in the geom's frame."""
    middle = _in_camera(camera, center)
    axes = _scaled(camera, extent)
    forward = axes[2]
    reach = abs(forward[0]) + abs(forward[1]) + abs(forward[2])
    if not middle[2] + reach > 0:  # behind the camera, or not finite
        return 0, 0, 0, 0
    if middle[2] - reach < _NEAREST:
        return whole
    x_min, x_max, y_min, y_max = NO_HIT, -NO_HIT, NO_HIT, -NO_HIT
    for i in (-1.0, 1.0):
        for j in (-1.0, 1.0):
            for k in (-1.0, 1.0):
                corner = (i, j, k)
                z = middle[2] + dot(forward, corner)
                x = (middle[0] + dot(axes[0], corner)) / z
                y = (middle[1] + dot(axes[1], corner)) / z
                x_min, x_max = min(x_min, x), max(x_max, x)
                y_min, y_max = min(y_min, y), max(y_max, y)
    return _pixels(x_min, x_max, y_min, y_max, lens, whole)


@inline
def _capsule_window(
    camera: CameraInGeom, radius: float, half_length: float, lens: Lens, whole: Window
) -> Window:
    """Pixels that may see a capsule: those from one end's sphere to the other's."""
    one = _in_camera(camera, (0.0, 0.0, half_length))
    other = _in_camera(camera, (0.0, 0.0, -half_length))
    if not max(one[2], other[2]) + radius > 0:  # behind the camera, or not finite
        return 0, 0, 0, 0
    if min(one[2], other[2]) - radius < _NEAREST:
        return whole
    x_min, x_max = _sphere_bounds(one[0], one[2], radius)
    y_min, y_max = _sphere_bounds(one[1], one[2], radius)
    other_x_min, other_x_max = _sphere_bounds(other[0], other[2], radius)
    other_y_min, other_y_max = _sphere_bounds(other[1], other[2], radius)
    return _pixels(
        min(x_min, other_x_min),
        max(x_max, other_x_max),
        min(y_min, other_y_min),
        max(y_max, other_y_max),
        lens,
        whole,
    )


@inline
def _sphere_bounds(x: float, z: float, radius: float) -> tuple[float, float]:
    """Slopes x/z of the two rays from the origin that touch a circle with centre (x, z)."""
    tangent_squared = z * z - radius * radius
    half = radius * np.sqrt(x * x + tangent_squared)
    return (x * z - half) / tangent_squared, (x * z + half) / tangent_squared


@inline
def _pixels(
    x_min: float, x_max: float, y_min: float, y_max: float, lens: Lens, limit: Window
) -> Window:
    """The pixels of `limit` whose rays (x, y, 1) lie within bounds."""
    left = np.ceil(x_min * lens.focal + lens.center_u - _SLACK_PX)
    right = np.floor(x_max * lens.focal + lens.center_u + _SLACK_PX)
    top = np.ceil(y_min * lens.focal + lens.center_v - _SLACK_PX)
    bottom = np.floor(y_max * lens.focal + lens.center_v + _SLACK_PX)
    return (
        max(limit[0], int(max(left, -1.0))),
        min(limit[1], int(min(right, 1e6)) + 1),
        max(limit[2], int(max(top, -1.0))),
        min(limit[3], int(min(bottom, 1e6)) + 1),
    )


@inline
def _in_camera(camera: CameraInGeom, point: Vector) -> Vector:
    """A point of the geom's frame in the camera frame."""
    right, down, forward, position = camera
    offset = along(point, -1.0, position)
    return dot(right, offset), dot(down, offset), dot(forward, offset)


@inline
def _scaled(camera: CameraInGeom, scale: Vector) -> CameraInGeom:
    """The camera in the geom's frame after that frame is stretched along its axes."""
    a, b, c, d = camera
    return times(a, scale), times(b, scale), times(c, scale), times(d, scale)
