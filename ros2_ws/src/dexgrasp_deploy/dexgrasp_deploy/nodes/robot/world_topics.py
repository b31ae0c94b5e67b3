"""Topics and services of a simulated world besides the robot: reset, object and markers."""

import json
from collections.abc import Sequence

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from dexgrasp_deploy.drivers.base import Driver, DriverContext
from dexgrasp_deploy.drivers.sim import SimArm, SimHand, SimWorld
from dexgrasp_sim.nodes.conversions import BASE_FRAME, to_pose
from dexgrasp_sim.nodes.display.markers import object_marker, stamped
from dexgrasp_sim.nodes.qos import LATCHED, NEWEST

_MARKER_EVERY = 6
"""Joint state messages per marker message; markers are for display only."""


class WorldTopics:
    """Service `sim/reset`, topics `sim/object_pose`, `sim/object_name` and `markers`: the object
    as it really lies, where the robot has only its estimate.

    `sim/reset` begins the next episode of the parameter `seed`; its answer's message is JSON:
    `seed`, `episode`, `object`, `start_height_m`.
    """

    def __init__(self, node: Node, world: SimWorld) -> None:
        self._node = node
        self._world = world
        self._count = 0
        self._pose = node.create_publisher(PoseStamped, "sim/object_pose", NEWEST)
        self._name = node.create_publisher(String, "sim/object_name", LATCHED)
        self._markers = node.create_publisher(MarkerArray, "markers", 1)
        node.create_service(Trigger, "sim/reset", self._on_reset)
        self._name.publish(String(data=world.object.name))

    @staticmethod
    def of(node: Node, context: DriverContext, drivers: Sequence[Driver]) -> "WorldTopics | None":
        """The topics of the drivers' simulated world; None for real or mock drivers."""
        if any(isinstance(driver, SimArm | SimHand) for driver in drivers):
            return WorldTopics(node, context.shared(SimWorld))
        return None

    def publish(self, stamp: Time) -> None:
        """Publishes the object's pose, with the stamp of the joint states of the same step."""
        world, pose = self._world, self._world.object_pose.tolist()
        message = PoseStamped(pose=to_pose(pose))
        message.header.stamp, message.header.frame_id = stamp, BASE_FRAME
        self._pose.publish(message)
        if self._count % _MARKER_EVERY == 0:
            self._markers.publish(stamped([object_marker(world.object, pose)], stamp))
        self._count += 1

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        world = self._world
        world.reset(self._node.get_parameter("seed").value)
        self._name.publish(String(data=world.object.name))
        episode = {
            "seed": world.seed,
            "episode": world.episode,
            "object": world.object.name,
            "start_height_m": world.start_height_m,
        }
        response.success, response.message = True, json.dumps(episode)
        return response
