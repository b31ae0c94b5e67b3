"""Health of a driver as a diagnostic message and in the log."""

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from dexgrasp_deploy.drivers.base import Driver, Level


def device_status(node: Node, driver: Driver) -> DiagnosticStatus:
    """The driver's health for `/diagnostics`; what is not in order is logged, now and then.

    Args:
        node: The owner of the driver.
        driver: Configured.
    """
    health = driver.health()
    if health.level is not Level.OK:
        text = f"{driver.kind}: {health.message}"
        node.get_logger().warning(text, throttle_duration_sec=5.0)
    name = f"{node.get_name()}: {type(driver).__name__}"
    return DiagnosticStatus(level=bytes([health.level]), name=name, message=health.message)
