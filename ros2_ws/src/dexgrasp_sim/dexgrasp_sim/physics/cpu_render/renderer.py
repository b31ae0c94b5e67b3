"""Depth and colour images of all environments of a batch, on CPU threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np

from dexgrasp_sim.physics.cpu_render.arrays import (
    Frames,
    Lens,
    Look,
    Poses,
    collect_geometry,
    default_look,
)
from dexgrasp_sim.physics.cpu_render.draw_kernels import draw
from dexgrasp_sim.physics.cpu_render.shade_kernels import shade, to_millimetres
from dexgrasp_sim.vision.camera import MUJOCO_TO_ROS, CameraConfig

_CHUNK = 16
"""Environments per kernel call; their data fit into the second-level cache."""


class BatchRenderer:
    """Draws N environments whose scenes differ in poses, object shapes and appearance.

    Images do not depend on the number of threads. The first image compiles the kernels (seconds,
    once per machine).

    Attributes:
        look: Colours, textures and light of the N environments, read at every image; write into
            its arrays to randomise them.
    """

    look: Look

    def __init__(
        self,
        models: Sequence[mujoco.MjModel],
        model_of_env: Sequence[int] | np.ndarray,
        camera: CameraConfig,
        threads: int = 1,
    ) -> None:
        """Reads the geoms and colours of all models.

        Args:
            models: All have the same geoms by number and name, of any type and size.
                Geoms of group 3 and above and those of alpha 0 are invisible.
            model_of_env: [N] int, index into `models` for each environment.
            camera: Image size, intrinsics, range and default pose.
            threads: Threads over which the environments are split.

        Raises:
            ValueError: The models' geoms differ, a visible geom is of a type that cannot be
                drawn, there is no environment, or an index into `models` or `threads` is out of
                range.
        """
        self._model_of_env = np.array(model_of_env, dtype=np.int64)
        self.num_envs = len(self._model_of_env)
        if not (threads > 0 < self.num_envs and np.isin(model_of_env, range(len(models))).all()):
            raise ValueError(
                f"threads {threads} must be at least 1 and model_of_env {model_of_env} must hold "
                f"numbers from 0 to {len(models) - 1}; correct the one that is not"
            )
        self._num_geoms = models[0].ngeom
        self._camera = camera
        self._geometry = collect_geometry(models)
        self._lens = Lens(camera.focal_px, (camera.width - 1) / 2, (camera.height - 1) / 2)
        self.look = default_look(models, self._model_of_env, camera)
        self._threads = min(threads, self.num_envs)
        self._scratch = [_Scratch(self._num_geoms, camera) for _ in range(self._threads)]
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None

    def depth(
        self,
        geom_xpos: np.ndarray,
        geom_xmat: np.ndarray,
        out: np.ndarray,
        camera_position: np.ndarray | None = None,
        camera_rotation: np.ndarray | None = None,
        segmentation: np.ndarray | None = None,
    ) -> None:
        """Writes depth images in place.

        Args:
            geom_xpos: [N, G, 3] m, geom positions, base frame, any floating type.
            geom_xmat: [N, G, 9] or [N, G, 3, 3], geom axes as columns, row by row.
            out: [N, H, W] int16 millimetres along the viewing axis; 0 where nothing is seen or
                the surface seen is nearer than the camera's near_m or farther than its far_m.
            camera_position: [N, 3] or [3] m, base frame; None for the camera config's.
            camera_rotation: [N, 3, 3] or [3, 3], MuJoCo camera axes (it looks along -z) in the
                base frame as columns; None for the camera config's.
            segmentation: [N, H, W] int16 if wanted: index of the geom seen at any distance,
                -1 where none is.

        Raises:
            ValueError: An array has the wrong shape or type.
        """
        self._check_image("out", out, (), "int16")
        if segmentation is not None:
            self._check_image("segmentation", segmentation, (), "int16")
        near_m, far_m = self._camera.near_m, self._camera.far_m

        def finish(scratch: "_Scratch", envs: slice, count: int) -> None:
            to_millimetres(scratch.frames.depth[:count], near_m, far_m, scratch.millimetres)
            out[envs] = scratch.millimetres[:count]
            if segmentation is not None:
                segmentation[envs] = scratch.frames.geom[:count]

        poses = self._poses(geom_xpos, geom_xmat, camera_position, camera_rotation)
        self._draw(poses, finish)

    def rgb(
        self,
        geom_xpos: np.ndarray,
        geom_xmat: np.ndarray,
        out: np.ndarray,
        camera_position: np.ndarray | None = None,
        camera_rotation: np.ndarray | None = None,
    ) -> None:
        """Writes colour images in place: `out` is [N, 3, H, W] uint8, the rest as in `depth`."""
        self._check_image("out", out, (3,), "uint8")

        def finish(scratch: "_Scratch", envs: slice, count: int) -> None:
            shade(
                self._geometry,
                self._model_of_env[envs],
                scratch.poses.camera_axes,
                self._lens,
                scratch.frames,
                Look(*(array[envs] for array in self.look)),
                scratch.colors,
            )
            out[envs] = scratch.colors[:count]

        poses = self._poses(geom_xpos, geom_xmat, camera_position, camera_rotation)
        self._draw(poses, finish)

    def render_float(
        self,
        geom_xpos: np.ndarray,
        geom_xmat: np.ndarray,
        camera_position: np.ndarray | None = None,
        camera_rotation: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depth at full precision, not limited to the camera's range.

        Returns:
            Depth [N, H, W] float32 m, 0 where nothing is seen, and the segmentation as in
            `depth`.
        """
        shape = (self.num_envs, self._camera.height, self._camera.width)
        depth, segmentation = np.empty(shape, np.float32), np.empty(shape, np.int16)

        def finish(scratch: "_Scratch", envs: slice, count: int) -> None:
            depth[envs] = scratch.frames.depth[:count]
            segmentation[envs] = scratch.frames.geom[:count]

        poses = self._poses(geom_xpos, geom_xmat, camera_position, camera_rotation)
        self._draw(poses, finish)
        return np.where(segmentation >= 0, depth, np.float32(0)), segmentation

    def close(self) -> None:
        """Ends the threads; idempotent. The renderer cannot be used afterwards."""
        if self._pool is not None:
            self._pool.shutdown()

    def _draw(self, poses: Poses, finish: "Callable[[_Scratch, slice, int], None]") -> None:
        """Draws all environments, chunk by chunk; `finish` copies a chunk's images out."""

        def run(thread: int) -> None:
            scratch = self._scratch[thread]
            begin = thread * self.num_envs // self._threads
            end = (thread + 1) * self.num_envs // self._threads
            for start in range(begin, end, _CHUNK):
                envs = slice(start, min(start + _CHUNK, end))
                scratch.load(poses, envs)
                draw(
                    self._geometry,
                    self._model_of_env[envs],
                    scratch.poses,
                    self._lens,
                    scratch.frames,
                )
                finish(scratch, envs, envs.stop - envs.start)

        if self._pool is None:
            run(0)
        else:
            list(self._pool.map(run, range(self._threads)))

    def _poses(
        self,
        geom_xpos: np.ndarray,
        geom_xmat: np.ndarray,
        camera_position: np.ndarray | None,
        camera_rotation: np.ndarray | None,
    ) -> Poses:
        """The poses as views of full shape, with defaults and camera axes in ROS' convention."""
        if camera_position is None:
            camera_position = self._camera.position
        if camera_rotation is None:
            camera_rotation = self._camera.rotation
        count, geoms = self.num_envs, self._num_geoms
        if geom_xpos.shape != (count, geoms, 3) or geom_xmat.size != count * geoms * 9:
            raise ValueError(
                f"geom_xpos {geom_xpos.shape} and geom_xmat {geom_xmat.shape} must be "
                f"{(count, geoms, 3)} and {(count, geoms, 9)}; pass the bound arrays of the batch"
            )
        return Poses(
            geom_xpos,
            geom_xmat.reshape(count, geoms, 3, 3),
            np.broadcast_to(camera_position, (count, 3)),
            np.broadcast_to(np.swapaxes(camera_rotation * MUJOCO_TO_ROS, -1, -2), (count, 3, 3)),
        )

    def _check_image(
        self, name: str, array: np.ndarray, channels: tuple[int, ...], dtype: str
    ) -> None:
        shape = (self.num_envs, *channels, self._camera.height, self._camera.width)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}; it must be {dtype} {shape}, as the "
                "camera config and the number of environments give it"
            )


class _Scratch:
    """One thread's arrays for a chunk of environments; kernels get no others.

    Arrays of other types, layouts or access would make numba compile the kernels again.
    """

    def __init__(self, num_geoms: int, camera: CameraConfig) -> None:
        pixels = (camera.height, camera.width)
        self.poses = Poses(
            np.empty((_CHUNK, num_geoms, 3)),
            np.empty((_CHUNK, num_geoms, 3, 3)),
            np.empty((_CHUNK, 3)),
            np.empty((_CHUNK, 3, 3)),
        )
        self.frames = Frames(
            np.empty((_CHUNK, *pixels), np.float32),
            np.empty((_CHUNK, *pixels), np.int16),
            np.zeros((_CHUNK, *pixels), np.int32),
            np.empty((_CHUNK, num_geoms, 4, 3)),
        )
        self.millimetres = np.empty((_CHUNK, *pixels), np.int16)
        self.colors = np.empty((_CHUNK, 3, *pixels), np.uint8)

    def load(self, poses: Poses, envs: slice) -> None:
        """Copies the poses of a chunk of environments."""
        for own, given in zip(self.poses, poses, strict=True):
            own[: envs.stop - envs.start] = given[envs]
