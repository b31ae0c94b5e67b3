"""A robot of a few lines on its topics, for viewers: it stands where it is told to."""

import contextlib
import os
import threading
from array import array

import numpy as np
import rclpy
from geometry_msgs.msg import Point, TransformStamped
from rclpy.context import Context
from rclpy.executors import (
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
)
from sensor_msgs.msg import Image, JointState, PointCloud2
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.display.markers import ball, passing
from dexgrasp_sim.nodes.display.point_cloud import point_cloud
from dexgrasp_sim.nodes.qos import LATCHED, NEWEST
from dexgrasp_sim.robot.robot import Robot

CAMERA = "camera_depth_optical_frame"
_PERIOD_S = 0.05


class FakeRobot:
    """Publishes in a thread of its own, within a `with` block.

    Attributes:
        measured: rad by joint name.
        commanded: rad by joint name; {}: nothing is commanded.
        markers: What is sent on `markers`.
        status: Of its policy.
        stops: How often its emergency stop was called.
    """

    def __init__(self, robot: Robot, namespace: str = "", can_stop: bool = True) -> None:
        self.robot = robot
        self.measured = dict(zip(robot.joint_names, robot.postures["pregrasp"]))
        self.commanded: dict[str, float] = {}
        self.markers: list[Marker] = [
            ball("goal", (-0.5, 0.1, 0.6), 0.03, (0.2, 0.8, 0.3)),
            passing(ball("contacts", (-0.5, 0.1, 0.4), 0.03, (1.0, 0.0, 0.0))),
        ]
        self.status = PolicyStatus(state=PolicyStatus.RUNNING, message="GRASP: goal accepted")
        self.status.bundle_id, self.status.control_hz, self.status.step = "c0ffee", 15.0, 7
        self.status.predicted_object_position = Point(x=-0.5, y=0.1, z=0.3)
        self.stops = 0
        self._context = Context()
        rclpy.init(context=self._context, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
        self.node = rclpy.create_node("fake_robot", context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        create = self.node.create_publisher
        self._joints = create(JointState, "joint_states", 1)
        self._commands = create(JointState, "joint_command", 1)
        self._statuses = create(PolicyStatus, "policy/status", 1)
        self._marks = create(MarkerArray, "markers", 1)
        self._pictures = create(Image, "display/image", NEWEST)
        self._points = create(PointCloud2, "display/points", NEWEST)
        description = create(String, "robot_description", LATCHED)
        description.publish(String(data=robot.urdf_path.read_text()))
        place = TransformStamped(child_frame_id=CAMERA)
        place.header.frame_id = robot.root
        place.transform.translation.x, place.transform.translation.z = -1.0, 0.7
        place.transform.rotation.x, place.transform.rotation.w = 1.0, 0.0  # it looks down
        create(TFMessage, "/tf_static", LATCHED).publish(TFMessage(transforms=[place]))
        if can_stop:
            self.node.create_service(Trigger, "policy/estop", self._on_stop)
        self.node.create_timer(_PERIOD_S, self._publish)

    def __enter__(self) -> "FakeRobot":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()
        self._thread.join(timeout=30)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException, ShutdownException):
            self._executor.spin()

    def _publish(self) -> None:
        for publisher, values in ((self._joints, self.measured), (self._commands, self.commanded)):
            if values:
                message = JointState(name=[*values], position=array("d", values.values()))
                publisher.publish(message)
        self._statuses.publish(self.status)
        self._marks.publish(MarkerArray(markers=self.markers))
        picture = Image(height=24, width=32, encoding="rgb8", step=96)
        picture.data = array("B", np.full((24, 32, 3), (250, 20, 250), np.uint8).tobytes())
        self._pictures.publish(picture)
        depth, colors = np.full((3, 4), 400, np.uint16), np.full((3, 4, 3), 200, np.uint8)
        header = Header(frame_id=CAMERA)
        self._points.publish(point_cloud(depth, colors, (10.0, 10.0), (1.5, 1.0), header))

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.stops += 1
        response.success = True
        return response
