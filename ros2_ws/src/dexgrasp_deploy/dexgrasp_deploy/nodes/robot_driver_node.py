"""Arm and hand drivers on topics: publishes measured joints, sends commanded ones."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from dexgrasp_deploy.drivers.base import DriverContext, JointDriver, JointSample, make_driver
from dexgrasp_deploy.drivers.sim import SimWorld
from dexgrasp_deploy.nodes.conversions import BASE_FRAME, to_joint_state, to_pose, to_stamp
from dexgrasp_deploy.nodes.markers import scene_markers
from dexgrasp_deploy.nodes.parameters import (
    COMMAND,
    LATCHED,
    NEWEST,
    declare,
    parameters_under,
)
from dexgrasp_learner.bundle import read_manifest
from dexgrasp_sim.nodes.node_main import run_node
from dexgrasp_sim.robot.kuka_allegro import URDF_PATH, load_robot

_HEALTH_PERIOD_S = 1.0
_MARKER_PERIOD_S = 0.1


class RobotDriverNode(Node):
    """Parameters: `bundle`, `seed`, `state_rate_hz`, `arm.driver`, `hand.driver` and what the
    chosen drivers know under `arm.` and `hand.`."""

    def __init__(self) -> None:
        super().__init__("robot_driver_node", automatically_declare_parameters_from_overrides=True)
        self.declare_parameter
        bundle = self._parameter("bundle", "")
        self._context = DriverContext(
            load_robot(),
            time.monotonic,
            read_manifest(Path(bundle)) if bundle else None,
            self._parameter("seed", 0),
        )
        self._drivers = [self._make(kind) for kind in ("arm", "hand")]
        self._states = self.create_publisher(JointState, "joint_states", COMMAND)
        self._description = self.create_publisher(String, "robot_description", LATCHED)
        self._description.publish(String(data=URDF_PATH.read_text()))
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._world = self._find_world()
        if self._world is not None:
            self._offer_world()
        self.create_subscription(JointState, "joint_command", self._on_command, COMMAND)
        self.create_timer(1.0 / self._parameter("state_rate_hz", 60.0), self._publish)
        self.create_timer(_HEALTH_PERIOD_S, self._publish_health)
        for driver in self._drivers:
            driver.activate()
