"""Publishes the watched environment on topics for rviz."""

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from torch import Tensor
from visualization_msgs.msg import MarkerArray

from dexgrasp_sim.nodes.conversions import to_camera_info, to_image, to_joint_state, to_stamp
from dexgrasp_sim.nodes.markers import scene_markers
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.transport.telemetry import EnvView

CAMERA_FRAME = "camera_depth_optical_frame"
_LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class SceneTopics:
    """Publishers of robot, objects and depth image; topic names are relative.

    All nodes publish on the same names, so a display shows the watched environment whichever node
    publishes it.
    """

    def __init__(self, node: Node, task: GraspConfig) -> None:
        self._clock = node.get_clock()
        self._task, self._robot = task, task.load_robot()
        self._joints = node.create_publisher(JointState, "joint_states", 1)
        self._markers = node.create_publisher(MarkerArray, "markers", 1)
        self._images = node.create_publisher(Image, "camera/depth/image_raw", _NEWEST)
        self._infos = node.create_publisher(CameraInfo, "camera/depth/camera_info", _NEWEST)
        self._description = node.create_publisher(String, "robot_description", _LATCHED)
        self._description.publish(String(data=self._robot.urdf_path.read_text()))

    def publish(self, view: EnvView, depth: Tensor | None) -> None:
        """Publishes the environment at one time.

        Args:
            view: Robot, object and goal.
            depth: [H, W] int16 mm, if the run has depth images.
        """
        stamp = to_stamp(self._clock, view.time_s)
        values = {name: tensor.tolist() for name, tensor in view.values.items()}
        joints = (values["joint_position"], values["joint_velocity"])
        self._joints.publish(to_joint_state(self._robot.joint_names, *joints, stamp))
        item = self._task.objects[view.env % len(self._task.objects)]  # see GraspEnv
        scene = (values["object_pose"], values["goal"])
        self._markers.publish(scene_markers(self._task.table, item, *scene, stamp))
        if depth is not None:
            image = to_image(depth.numpy().view(np.uint16), CAMERA_FRAME, stamp)
            self._images.publish(image)
            self._infos.publish(to_camera_info(image, self._task.camera.focal_px))
