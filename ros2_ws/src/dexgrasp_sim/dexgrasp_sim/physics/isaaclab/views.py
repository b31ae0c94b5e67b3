"""Images of one camera in every environment."""

import torch
from isaaclab.sensors import Camera
from torch import Tensor

from dexgrasp_sim.robot.rotation import matrix_to_quaternion
from dexgrasp_sim.vision.camera import CameraConfig


class View:
    """A camera whose poses may differ between environments and images.

    Attributes:
        nominal: Its pose where none is given.
    """

    nominal: CameraConfig

    def __init__(self, camera: Camera) -> None:
        """`camera` has one kind of image, in every environment."""
        self._camera = camera
        self._kind = camera.cfg.data_types[0]

    def draw(self, pose: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Renders the current state.

        Args:
            pose: Positions [N, 3] m and rotations [N, 3, 3], MuJoCo camera axes as columns, base
                frame; None: nominal.

        Returns:
            [N, H, W, 1] float32 m along the viewing axis, 0 where nothing is seen, or [N, H, W, 3]
            uint8; overwritten by the next call.
        """
        camera, count = self._camera, self._camera.num_instances
        if pose is None:
            nominal = self.nominal
            pose = torch.from_numpy(nominal.position), torch.from_numpy(nominal.rotation)
        position = pose[0].float().expand(count, 3).to(camera.device)
        wxyz = matrix_to_quaternion(pose[1].float()).expand(count, 4).to(camera.device)
        # MuJoCo's camera axes are OpenGL's
        camera.set_world_poses(position, wxyz[:, [1, 2, 3, 0]], convention="opengl")
        camera.update(0.0, force_recompute=True)
        image = camera.data.output
        assert image is not None
        return image[self._kind].torch
