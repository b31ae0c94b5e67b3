"""A camera driver on topics: depth as 16UC1 millimetres or a stereo pair as rgb8."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String

from dexgrasp_deploy.calibration.results.mounted_camera import MountedCamera
from dexgrasp_deploy.drivers.base import (
    CameraDriver,
    CameraSample,
    DriverContext,
    Intrinsics,
    SceneCamera,
)
from dexgrasp_deploy.drivers.first_sample import check_exposure
from dexgrasp_deploy.drivers.placement import drivers_own, place_camera
from dexgrasp_deploy.drivers.registry import make_driver
from dexgrasp_deploy.nodes.conversions import from_joint_state, from_pose, to_camera_info
from dexgrasp_deploy.nodes.drivers.device_status import device_status
from dexgrasp_deploy.nodes.parameters import Parameters
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.nodes.conversions import to_image, to_pose, to_stamp
from dexgrasp_sim.nodes.node_main import run_node
from dexgrasp_sim.nodes.qos import LATCHED, NEWEST

_POLL_PERIOD_S = 0.005
_HEALTH_PERIOD_S = 1.0


class CameraNode(Node):
    """Parameters: `bundle`, `robot`, `camera.driver` and those of the driver under `camera.`.

    Topics: `camera/<stream>/image_raw` and `camera/<stream>/camera_info` with the streams `depth`,
    or `left` and `right`; and `camera/pose`, latched: the optical axes of the (left) image in the
    frame of the robot.
    """

    def __init__(self) -> None:
        super().__init__("camera_node", automatically_declare_parameters_from_overrides=True)
        parameters = Parameters(self)
        bundle = parameters.get("bundle", "")
        manifest = read_manifest(Path(bundle)) if bundle else None
        driver = make_driver("camera", parameters.get("camera.driver", "mock"))
        assert isinstance(driver, CameraDriver)
        self._driver = driver
        robot = parameters.robot(manifest)
        context = DriverContext(robot, time.monotonic, manifest, node=self)
        given = parameters.under("camera")
        camera = place_camera(given, robot, manifest)
        driver.configure(context, drivers_own(given))
        parameters.reject_unknown()
        if camera is not None:
            self._publish_pose(camera)
        self._baseline_m = manifest.task.stereo_baseline_m if manifest else 0.0
        self._streams: dict[str, _Stream] = {}
        if isinstance(driver, SceneCamera):
            self._scene = _Scene(self, driver)
        else:
            self.create_timer(_POLL_PERIOD_S, self._poll)
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(_HEALTH_PERIOD_S, self._publish_health)
        driver.activate()

    def _publish_pose(self, camera: MountedCamera) -> None:
        if camera.warning:
            self.get_logger().warning(f"camera: {camera.warning}")
        message = PoseStamped(pose=to_pose(camera.pose.tolist()))
        message.header.frame_id = camera.parent
        message.header.stamp = self.get_clock().now().to_msg()
        self._pose = self.create_publisher(PoseStamped, "camera/pose", LATCHED)
        self._pose.publish(message)

    def publish(self, sample: CameraSample, stamp: Time) -> None:
        """Publishes one exposure on the stream or streams of its kind.

        Raises:
            ConfigError: The driver's first exposure is of no kind that can be published.
        """
        if not self._streams:
            check_exposure(f"camera.driver {type(self._driver).__name__}", sample)
        if sample.image.ndim == 2:
            self._stream("depth").publish(sample.image, sample.intrinsics, stamp)
            return
        self._stream("left").publish(sample.image[0], sample.intrinsics, stamp)
        self._stream("right").publish(sample.image[1], sample.intrinsics, stamp)

    def _poll(self) -> None:
        sample = self._driver.read()
        if sample is not None:
            self.publish(sample, to_stamp(self.get_clock(), sample.stamp_s))

    def _publish_health(self) -> None:
        message = DiagnosticArray(status=[device_status(self, self._driver)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._health.publish(message)

    def _stream(self, name: str) -> "_Stream":
        if name not in self._streams:
            baseline_m = self._baseline_m if name == "right" else 0.0
            self._streams[name] = _Stream(self, name, baseline_m)
        return self._streams[name]

    def destroy_node(self) -> None:
        """Stops the camera first."""
        self._driver.deactivate()
        super().destroy_node()


class _Stream:
    """Image and intrinsics of one camera."""

    def __init__(self, node: Node, name: str, baseline_m: float) -> None:
        self._frame = f"camera_{name}_optical_frame"
        self._baseline_m = baseline_m
        self._images = node.create_publisher(Image, f"camera/{name}/image_raw", NEWEST)
        self._infos = node.create_publisher(CameraInfo, f"camera/{name}/camera_info", NEWEST)

    def publish(self, pixels: NDArray[Any], intrinsics: Intrinsics | None, stamp: Time) -> None:
        image = to_image(pixels, self._frame, stamp)
        if intrinsics is not None:
            info = to_camera_info(image, intrinsics)
            # the right camera of a pair (REP 104)
            info.p[3] = -intrinsics.focal_px[0] * self._baseline_m
            self._infos.publish(info)
        self._images.publish(image)


class _Scene:
    """Sets the scene of a rendering camera from joints and object pose of the same stamp."""

    def __init__(self, node: CameraNode, camera: SceneCamera) -> None:
        self._node = node
        self._camera = camera
        self._joints: JointState | None = None
        self._pose: PoseStamped | None = None
        self._object_name: str | None = None
        node.create_subscription(JointState, "joint_states", self._on_joints, NEWEST)
        node.create_subscription(PoseStamped, "sim/object_pose", self._on_pose, NEWEST)
        node.create_subscription(String, "sim/object_name", self._on_name, LATCHED)

    def _on_joints(self, message: JointState) -> None:
        self._joints = message
        self._draw_when_complete()

    def _on_pose(self, message: PoseStamped) -> None:
        self._pose = message
        self._draw_when_complete()

    def _on_name(self, message: String) -> None:
        self._object_name = message.data

    def _draw_when_complete(self) -> None:
        joints, pose, name = self._joints, self._pose, self._object_name
        if joints is None or pose is None or name is None:
            return
        if joints.header.stamp != pose.header.stamp:
            return
        sample = from_joint_state(self._node.get_clock(), joints)
        if not sample.consistent:
            return
        self._camera.observe(sample, from_pose(pose.pose), name)
        image = self._camera.read()
        if image is not None:
            self._node.publish(image, joints.header.stamp)


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    torch.set_num_threads(1)
    return run_node(CameraNode, args)


if __name__ == "__main__":
    sys.exit(main())
