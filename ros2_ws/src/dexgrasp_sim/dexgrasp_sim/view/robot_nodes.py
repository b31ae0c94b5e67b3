"""A robot's visual shapes as nodes of a viser scene."""

from collections.abc import Sequence

import torch
import viser
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.model import RobotModel, Shape

Color = tuple[int, int, int]

_SMOOTH = 40
"""Corners of the polygon that a cylinder is drawn as."""


class RobotNodes:
    """A node <root>/<link> for each link with shapes, with its k-th shape <root>/<link>/<k>."""

    def __init__(
        self,
        scene: viser.SceneApi,
        robot: RobotModel,
        root: str = "/robot",
        opacity: float | None = None,
        color: Color | None = None,
    ) -> None:
        """Adds the nodes, which `show` moves.

        Args:
            scene: What to add to.
            robot: Its visual shapes are shown.
            root: Name of the node above all.
            opacity: Of all shapes, 0 to 1; None: they are solid, and cast shadows.
            color: Of all shapes; None: their own.
        """
        self._scene, self._opacity, self._color = scene, opacity, color
        links = [link.name for link in robot.links.values() if link.visuals]
        self._kinematics = Kinematics(robot, links)
        self.root = scene.add_frame(root, show_axes=False)
        self._frames = [self._add_link(robot, root, name) for name in links]

    def show(self, position: torch.Tensor) -> None:
        """Moves all links to joint positions [J], rad, in the robot's joint order."""
        poses = self._kinematics.forward(position.float().unsqueeze(0))
        turns = Rotation.from_matrix(poses.rotation[0].numpy()).as_quat(scalar_first=True)
        for frame, place, turn in zip(self._frames, poses.position[0].numpy(), turns):
            frame.position, frame.wxyz = place, turn

    def remove(self) -> None:
        """Removes the robot from the scene."""
        self.root.remove()

    def _add_link(self, robot: RobotModel, root: str, name: str) -> viser.FrameHandle:
        frame = self._scene.add_frame(f"{root}/{name}", show_axes=False)
        for index, shape in enumerate(robot.links[name].visuals):
            self._add_shape(f"{root}/{name}/{index}", shape)
        return frame

    def _add_shape(self, name: str, shape: Shape) -> None:
        matrix, color = shape.origin.matrix, self._color or color_bytes(shape.rgba)
        turn: NDArray = Rotation.from_matrix(matrix[:3, :3]).as_quat(scalar_first=True)
        look = {
            "color": color,
            "position": matrix[:3, 3],
            "wxyz": turn,
            "opacity": self._opacity,
            "cast_shadow": self._opacity is None,
        }
        scene = self._scene
        if shape.kind == "box":
            scene.add_box(name, dimensions=shape.size, **look)  # type: ignore[arg-type]
        elif shape.kind == "cylinder":
            radius, length = shape.size
            scene.add_cylinder(name, radius, length, radial_segments=_SMOOTH, **look)
        else:
            scene.add_icosphere(name, shape.size[0], **look)


def color_bytes(color: Sequence[float]) -> Color:
    """Converts a colour from 0..1 to 0..255, without its opacity."""
    red, green, blue = (round(255 * part) for part in color[:3])
    return red, green, blue
