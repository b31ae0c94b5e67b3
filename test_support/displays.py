"""What rviz would get: the frames that it composes, and the topics that its files name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

_KINDS = {
    "RobotModel": String,
    "MarkerArray": MarkerArray,
    "Image": Image,
    "PointCloud2": PointCloud2,
}
_WITHOUT_TOPIC = {"Grid", "TF"}


class FrameTree:
    """The frames of /tf and /tf_static, as rviz's listener hears them.

    Attributes:
        parents: Parent frame and pose [4, 4] in it, by frame.
    """

    def __init__(self, node: Node) -> None:
        self.parents: dict[str, tuple[str, NDArray[np.float64]]] = {}
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(TFMessage, "/tf", self._take, 100)
        node.create_subscription(TFMessage, "/tf_static", self._take, latched)

    def _take(self, message: TFMessage) -> None:
        for each in message.transforms:
            place, turn = each.transform.translation, each.transform.rotation
            matrix = np.eye(4)
            turned = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w])
            matrix[:3, :3] = turned.as_matrix()
            matrix[:3, 3] = place.x, place.y, place.z
            self.parents[each.child_frame_id] = each.header.frame_id, matrix

    def pose(self, frame: str, root: str = "base") -> NDArray[np.float64]:
        """[4, 4]: a frame in the root; KeyError if no chain of frames leads there."""
        matrix = np.eye(4)
        while frame != root:
            frame, above = self.parents[frame]
            matrix = above @ matrix
        return matrix


class Display(NamedTuple):
    """One display of an .rviz file that reads a topic."""

    name: str
    kind: type
    topic: str
    qos: QoSProfile
    prefix: str


def displays(file: Path) -> Iterator[Display]:
    """The displays of an .rviz file that read topics; others than those known are refused."""
    manager = yaml.safe_load(file.read_text())["Visualization Manager"]
    for display in manager["Displays"]:
        kind = display["Class"].removeprefix("rviz_default_plugins/")
        if kind in _WITHOUT_TOPIC:
            continue
        topic: Mapping[str, Any] = display.get("Topic") or display["Description Topic"]
        qos = QoSProfile(
            depth=topic["Depth"],
            reliability=_policy(ReliabilityPolicy, topic["Reliability Policy"]),
            durability=_policy(DurabilityPolicy, topic["Durability Policy"]),
        )
        prefix = display.get("TF Prefix", "")
        yield Display(display["Name"], _KINDS[kind], topic["Value"], qos, prefix)


def fixed_frame(file: Path) -> str:
    """The frame in which an .rviz file shows everything."""
    return yaml.safe_load(file.read_text())["Visualization Manager"]["Global Options"][
        "Fixed Frame"
    ]


def mismatch(node: Node, display: Display) -> str:
    """Why a display would stay empty; "" if every publisher of its topic suits it."""
    publishers = node.get_publishers_info_by_topic(display.topic)
    if not publishers:
        return f"{display.name}: nobody publishes {display.topic}"
    wanted = f"{display.kind.__module__.split('.')[0]}/msg/{display.kind.__name__}"
    for publisher in publishers:
        given = publisher.qos_profile
        if publisher.topic_type != wanted:
            return f"{display.name}: {display.topic} is {publisher.topic_type}, not {wanted}"
        if (
            display.qos.reliability == ReliabilityPolicy.RELIABLE
            and given.reliability != ReliabilityPolicy.RELIABLE
        ):
            return f"{display.name}: {publisher.node_name} publishes with best effort"
        if (
            display.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
            and given.durability != DurabilityPolicy.TRANSIENT_LOCAL
        ):
            return f"{display.name}: {publisher.node_name} keeps nothing for late readers"
    return ""


def _policy(kind: Any, words: str) -> Any:
    return kind[words.upper().replace(" ", "_")]
