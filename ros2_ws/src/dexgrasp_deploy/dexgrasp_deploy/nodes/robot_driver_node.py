"""Arm and hand drivers on topics: publishes the measured joints, sends the commanded ones."""

import sys
import time
from array import array
from pathlib import Path

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from dexgrasp_deploy.drivers.base import DriverContext, JointDriver, JointSample
from dexgrasp_deploy.drivers.first_sample import check_joints
from dexgrasp_deploy.drivers.registry import make_driver
from dexgrasp_deploy.nodes.drivers.device_status import device_status
from dexgrasp_deploy.nodes.parameters import Parameters
from dexgrasp_deploy.nodes.policy.publisher_watch import publisher_names
from dexgrasp_deploy.nodes.robot.world_topics import WorldTopics
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.conversions import to_joint_state, to_stamp
from dexgrasp_sim.nodes.node_main import run_node
from dexgrasp_sim.nodes.qos import COMMAND, LATCHED

_HEALTH_PERIOD_S = 1.0
_COMMANDERS_PERIOD_S = 0.5
_LIMIT_SLACK_RAD = 1e-3


class RobotDriverNode(Node):
    """Drives arm and hand.

    Parameters: `bundle`, `robot` (name or robot.yaml; "": the bundle's), `seed`, `state_rate_hz`,
    `arm.driver`, `hand.driver`, and under `arm.` and `hand.` those of the chosen drivers.
    """

    def __init__(self) -> None:
        super().__init__("robot_driver_node", automatically_declare_parameters_from_overrides=True)
        parameters = Parameters(self)
        bundle = parameters.get("bundle", "")
        manifest = read_manifest(Path(bundle)) if bundle else None
        context = DriverContext(
            robot=parameters.robot(manifest),
            clock=time.monotonic,
            manifest=manifest,
            seed=parameters.get("seed", 0),
            node=self,
        )
        rate_hz = parameters.get("state_rate_hz", 60.0)
        if rate_hz <= 0:
            raise ConfigError(f"state_rate_hz = {rate_hz}: must be positive")
        names = {kind: parameters.get(f"{kind}.driver", "mock") for kind in ("arm", "hand")}
        self._drivers: list[JointDriver] = []
        for kind, name in names.items():
            driver = make_driver(kind, name)
            assert isinstance(driver, JointDriver)
            driver.configure(context, parameters.under(kind))
            self._drivers.append(driver)
        parameters.reject_unknown()
        _check_joints(self._drivers, context.robot.joint_names)
        robot = context.robot
        limits = zip(robot.lower.tolist(), robot.upper.tolist(), strict=True)
        self._limits = dict(zip(robot.joint_names, limits, strict=True))
        self.refused_commands = 0
        self._commanders: list[str] = []
        self._seen: list[str] = []
        self._obeyed: dict[str, float] = {}
        self._create_interfaces(rate_hz, context.robot.urdf_path.read_text())
        self._world_topics = WorldTopics.of(self, context, self._drivers)
        for driver in self._drivers:
            driver.activate()
        try:
            for driver in self._drivers:
                check_joints(driver, context.robot)
        except ConfigError:
            self._stop_drivers()
            raise

    def _create_interfaces(self, rate_hz: float, urdf: str) -> None:
        self._states = self.create_publisher(JointState, "joint_states", COMMAND)
        self._echo = self.create_publisher(JointState, "joint_command_echo", COMMAND)
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        description = self.create_publisher(String, "robot_description", LATCHED)
        description.publish(String(data=urdf))
        self.create_subscription(JointState, "joint_command", self._on_command, COMMAND)
        self.create_timer(1.0 / rate_hz, self._publish)
        self.create_timer(_HEALTH_PERIOD_S, self._publish_health)
        self.create_timer(_COMMANDERS_PERIOD_S, self._count_commanders)

    def _publish(self) -> None:
        """Publishes all joints in one message, stamped with the older of the two measurements,
        and the commands that they obey.
        """
        samples = [driver.read() for driver in self._drivers]
        stamp = to_stamp(self.get_clock(), min(sample.stamp_s for sample in samples))
        names = [name for sample in samples for name in sample.names]
        position = np.concatenate([sample.position for sample in samples])
        velocity = np.concatenate([sample.velocity for sample in samples])
        message = to_joint_state(names, position.tolist(), velocity.tolist(), stamp)
        message.effort = _efforts(samples)
        self._states.publish(message)
        if self._obeyed:
            now = self.get_clock().now().to_msg()
            names, values = [*self._obeyed], [*self._obeyed.values()]
            self._echo.publish(to_joint_state(names, values, [], now))
        if self._world_topics is not None:
            self._world_topics.publish(stamp)

    def _on_command(self, message: JointState) -> None:
        positions = dict(zip(message.name, message.position, strict=False))
        refusal = self._refusal(message, positions)
        if refusal:
            self.refused_commands += 1
            text = f"joint_command refused: {refusal}"
            self.get_logger().error(text, throttle_duration_sec=1.0)
            return
        self._obeyed |= positions
        for driver in self._drivers:
            own = {name: positions[name] for name in driver.joint_names if name in positions}
            if own:
                driver.write(own)

    def _refusal(self, message: JointState, positions: dict[str, float]) -> str:
        """Why a command is not obeyed; "" if it is."""
        if len(self._commanders) > 1:
            return f"{', '.join(self._commanders)} publish it; only one may"
        if len(message.name) != len(message.position):
            return f"{len(message.name)} names and {len(message.position)} positions"
        unknown = sorted(set(positions) - set(self._limits))
        if unknown:
            return f"unknown joints {', '.join(unknown)}"
        for name, position in positions.items():
            lower, upper = self._limits[name]
            if not lower - _LIMIT_SLACK_RAD <= position <= upper + _LIMIT_SLACK_RAD:
                return f"{name} = {position:g} rad, its limits are {lower:.4g} to {upper:.4g}"
        return ""

    def _count_commanders(self) -> None:
        """Who publishes commands; two must be seen twice in a row, as one may just be ending."""
        names = publisher_names(self, "joint_command")
        self._commanders = names if names == self._seen or len(names) < 2 else self._commanders
        self._seen = names

    def _publish_health(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [device_status(self, driver) for driver in self._drivers]
        self._health.publish(message)

    def _stop_drivers(self) -> None:
        for driver in self._drivers:
            driver.deactivate()

    def destroy_node(self) -> None:
        """Stops the drivers first."""
        self._stop_drivers()
        super().destroy_node()


def _efforts(samples: list[JointSample]) -> array:
    """N m of all joints, NaN where they are not measured; empty where none is."""
    if all(sample.effort is None for sample in samples):
        return array("d")
    missing = [np.full(len(sample.names), np.nan) for sample in samples]
    efforts = [m if s.effort is None else s.effort for s, m in zip(samples, missing)]
    return array("d", np.concatenate(efforts))


def _check_joints(drivers: list[JointDriver], wanted: tuple[str, ...]) -> None:
    found = [name for driver in drivers for name in driver.joint_names]
    if sorted(found) != sorted(wanted):
        raise ConfigError(
            f"the drivers have the joints {sorted(found)}, the robot has {sorted(wanted)}; "
            "map the drivers' names to those of the URDF"
        )


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    torch.set_num_threads(1)
    return run_node(RobotDriverNode, args)


if __name__ == "__main__":
    sys.exit(main())
