"""Images of all environments by MuJoCo Warp's ray tracer."""

from dataclasses import dataclass

import mujoco
import mujoco_warp as mjw
import torch
import warp as wp
from torch import Tensor

from dexgrasp_sim.physics.mujoco_warp.kernels import place_cameras, to_channels, to_millimetres
from dexgrasp_sim.physics.mujoco_warp.launches import Launches
from dexgrasp_sim.physics.mujoco_warp.models import with_camera
from dexgrasp_sim.vision.camera import CameraConfig

_CLEAR = (0.0, 0.0, 0.0, 0.0)
"""Background of the ray tracer; its alpha says that nothing is seen."""


@dataclass(frozen=True)
class World:
    """All environments in Warp.

    Attributes:
        host: The common model.
        model: The same on the device, with what differs between environments.
        data: Their state.
        device: Warp's.
        torch_device: The same device, torch's.
        use_graph: Whether launches become CUDA graphs.
    """

    host: mujoco.MjModel
    model: mjw.Model
    data: mjw.Data
    device: wp.Device
    torch_device: torch.device
    use_graph: bool


class _View:
    """Cameras of equal image size and field of view, one or two in each environment."""

    def __init__(
        self, world: World, cameras: tuple[CameraConfig, ...], rgb: bool, textures: bool
    ) -> None:
        self._world, self.camera = world, cameras[0]
        count = world.data.nworld
        host = with_camera(world.host, self.camera.fovy_deg)
        with wp.ScopedDevice(world.device):
            self.context = mjw.create_render_context(
                host,
                nworld=count,
                cam_res=(self.camera.width, self.camera.height),
                render_rgb=rgb,
                render_depth=not rgb,
                render_seg=False,
                use_textures=textures,
                cam_active=list(range(len(cameras))),
                background_color=_CLEAR,
                enable_vertex_normals=False,
                enable_specular=False,
                enable_emission=False,
            )
            wp.synchronize_device()  # it was made in another stream than it is used in
        nominal = [torch.from_numpy(camera.position) for camera in cameras]
        turned = [torch.from_numpy(camera.rotation) for camera in cameras]
        device = world.torch_device
        self._nominal = torch.stack(nominal).float().to(device)  # [C, 3]
        self._turned = torch.stack(turned).float().to(device)  # [C, 3, 3]
        self._position = self._nominal.repeat(count, 1, 1)  # [N, C, 3]
        self._rotation = self._turned.repeat(count, 1, 1, 1)  # [N, C, 3, 3]
        self._positions = wp.from_torch(self._position, dtype=wp.vec3)
        self._rotations = wp.from_torch(self._rotation, dtype=wp.mat33)
        self._render = Launches(world.device, self._launch, world.use_graph)

    def draw(self, position: Tensor | None = None, rotation: Tensor | None = None) -> None:
        """Renders; arguments as for `DepthView.render`."""
        self._position.copy_(self._nominal if position is None else position)
        self._rotation.copy_(self._turned if rotation is None else rotation)
        self._render()

    def _launch(self) -> None:
        model, data = self._world.model, self._world.data
        wp.launch(
            place_cameras,
            dim=data.nworld,
            inputs=[self._positions, self._rotations, model.light_dir],
            outputs=[data.cam_xpos, data.cam_xmat, data.light_xdir],
        )
        mjw.refit_bvh(model, data, self.context)
        mjw.render(model, data, self.context)
        self._finish()

    def _finish(self) -> None:
        raise NotImplementedError


class DepthView(_View):
    """Depth images of one camera.

    Attributes:
        depth_m: [N, H, W] float32 m along the viewing axis, 0 where nothing is seen.
    """

    def __init__(self, world: World, camera: CameraConfig) -> None:
        """Args:
        world: The environments.
        camera: Image size, field of view, range and nominal pose.
        """
        super().__init__(world, (camera,), rgb=False, textures=False)
        shape = (world.data.nworld, camera.height, camera.width)
        self.depth_m = wp.to_torch(self.context.depth_data).view(shape)
        self._image = torch.zeros(shape, dtype=torch.int16, device=world.torch_device)
        self._pixels = wp.from_torch(self._image.view(shape[0], -1))

    def render(
        self, out: Tensor, position: Tensor | None = None, rotation: Tensor | None = None
    ) -> None:
        """Writes [N, H, W] int16 millimetres.

        Args:
            out: The images.
            position: [N, 1, 3] m of the camera, base frame; None: nominal.
            rotation: [N, 1, 3, 3], MuJoCo camera axes as columns; None: nominal.
        """
        self.draw(position, rotation)
        out.copy_(self._image)

    def _finish(self) -> None:
        wp.launch(
            to_millimetres,
            dim=self._pixels.shape,
            inputs=[self.context.depth_data, self.camera.near_m, self.camera.far_m],
            outputs=[self._pixels],
        )


class ColorView(_View):
    """Colour images of one or two cameras."""

    def __init__(
        self, world: World, cameras: tuple[CameraConfig, ...], background: Tensor
    ) -> None:
        """Args:
        world: The environments.
        cameras: C cameras that differ in their pose only.
        background: [N, 3] float32, colour where nothing is seen; read at each image.
        """
        super().__init__(world, cameras, rgb=True, textures=True)
        size = (self.camera.height, self.camera.width)
        shape = (world.data.nworld, len(cameras), 3, *size)
        self._image = torch.zeros(shape, dtype=torch.uint8, device=world.torch_device)
        self._pixels = wp.from_torch(self._image.view(*shape[:3], -1))
        self._background = wp.from_torch(background)

    def render(
        self, out: Tensor, position: Tensor | None = None, rotation: Tensor | None = None
    ) -> None:
        """Writes [N, C, 3, H, W] uint8; arguments as for `DepthView.render`, for C cameras."""
        self.draw(position, rotation)
        out.copy_(self._image)

    def _finish(self) -> None:
        count, cameras, _, pixels = self._pixels.shape
        wp.launch(
            to_channels,
            dim=(count, cameras, pixels),
            inputs=[self.context.rgb_data, self._background],
            outputs=[self._pixels],
        )
