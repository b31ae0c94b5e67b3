"""What displays of a deployment need: frames, markers, a picture and a point cloud.

It is a process of its own, so that the control loop does nothing for displays; and it makes only
what somebody looks at. Topics, beside those that it reads:

====================  ==============================  ===========================================
``/tf, /tf_static``   tf2_msgs/TFMessage              the robot as measured; as commanded under
                                                      ``commanded/``; optical frames of the camera
``markers``           visualization_msgs/MarkerArray  ``table``, ``workspace``, ``goal``,
                                                      ``prediction``, ``contacts``,
                                                      ``joint_limits``, ``status``
``display/image``     sensor_msgs/Image               rgb8: what the policy sees, with prediction,
                                                      goal and fingertips
``display/points``    sensor_msgs/PointCloud2         of the depth image
====================  ==============================  ===========================================
"""

import sys
from pathlib import Path

import torch
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from dexgrasp_deploy.calibration.results.extrinsics import read_extrinsics
from dexgrasp_deploy.nodes.display.camera_views import CameraViews
from dexgrasp_deploy.nodes.display.policy_markers import PolicyMarkers
from dexgrasp_deploy.nodes.display.robot_state import RobotState
from dexgrasp_deploy.nodes.parameters import Parameters
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.display.frames import COMMANDED, FrameTopics, RobotFrames
from dexgrasp_sim.nodes.display.markers import stamped
from dexgrasp_sim.nodes.node_main import run_node
from dexgrasp_sim.nodes.qos import LATCHED, NEWEST, STREAMS


class DisplayNode(Node):
    """Parameters: `bundle`; `extrinsics`, a file of `dexgrasp calibrate hand-eye` ("": the camera
    is where the policy was trained with it); `robot_frames`, whether to publish those of the robot
    (false where robot_state_publisher does); `shadow`, whether the policy commands nothing;
    `frames_hz`, `markers_hz`, `images_hz`, the largest rates.
    """

    def __init__(self) -> None:
        super().__init__("display_node", automatically_declare_parameters_from_overrides=True)
        parameters = Parameters(self)
        manifest = read_manifest(Path(parameters.get("bundle", "")))
        extrinsics = parameters.get("extrinsics", "")
        moves_frames = parameters.get("robot_frames", True)
        shadow = parameters.get("shadow", False)
        rates = {name: parameters.get(f"{name}_hz", 15.0) for name in ("frames", "images")}
        rates["markers"] = parameters.get("markers_hz", 10.0)
        parameters.reject_unknown()
        for name, rate_hz in rates.items():
            if not 0 < rate_hz <= 1000:
                raise ConfigError(f"{name}_hz = {rate_hz}: must be above 0, at most 1000")
        task = manifest.task
        robot = task.load_robot()
        self._state = RobotState(robot)
        self._status: PolicyStatus | None = None
        self._frames = FrameTopics(self)
        self._measured, self._commanded = RobotFrames(robot), RobotFrames(robot, COMMANDED)
        image = manifest.image.name if manifest.image else None
        place = read_extrinsics(Path(extrinsics)) if extrinsics else None
        self._cameras = CameraViews(self, task, image, place)
        self._frames.fix([*self._measured.fixed, *self._commanded.fixed, *self._cameras.frames])
        self._policy_markers = PolicyMarkers(robot, task)
        self._markers = self.create_publisher(MarkerArray, "markers", 1)
        self.create_subscription(JointState, "joint_states", self._state.measure, STREAMS)
        commands = "policy/safe" if shadow else "joint_command"
        self.create_subscription(JointState, commands, self._state.command, NEWEST)
        if shadow:  # else the policy does not publish `policy/safe`
            self.create_subscription(PolicyStatus, "policy/step", lambda _: None, NEWEST)
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, NEWEST)
        self.create_subscription(String, "sim/object_name", self._on_object_name, LATCHED)
        if moves_frames:
            self.create_timer(1 / rates["frames"], self._publish_frames)
        self.create_timer(1 / rates["markers"], self._publish_markers)
        self.create_timer(1 / rates["images"], self._publish_images)

    def _on_status(self, message: PolicyStatus) -> None:
        self._status = message

    def _on_object_name(self, message: String) -> None:
        """Only a simulation says which object it is."""
        self._policy_markers.name_object(message.data)

    def _publish_frames(self) -> None:
        state = self._state
        if not self._frames.watched:
            return
        moved = []
        if stamp := state.take_measured():
            moved = self._measured.moving(state.measured, stamp)
        if stamp := state.take_commanded():
            moved += self._commanded.moving(state.commanded, stamp)
        if moved:
            self._frames.move(moved)

    def _publish_markers(self) -> None:
        if self._markers.get_subscription_count():
            now = self.get_clock().now().to_msg()
            markers = self._policy_markers.at(self._state, self._status)
            self._markers.publish(stamped(markers, now))

    def _publish_images(self) -> None:
        self._cameras.publish(self._policy_markers.marks(self._state, self._status), self._state)


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    torch.set_num_threads(1)
    return run_node(DisplayNode, args)


if __name__ == "__main__":
    sys.exit(main())
