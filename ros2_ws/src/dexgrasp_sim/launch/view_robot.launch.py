"""The robot in rviz with a slider per joint: `ros2 launch dexgrasp_sim view_robot.launch.py`."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch_ros.actions import Node

from dexgrasp_sim.robot.kuka_allegro import URDF_PATH


def generate_launch_description() -> LaunchDescription:
    layout = Path(get_package_share_directory("dexgrasp_sim")) / "rviz" / "robot.rviz"
    description = {"robot_description": URDF_PATH.read_text()}
    return LaunchDescription(
        [
            _node("robot_state_publisher", parameters=[description]),
            _node("joint_state_publisher_gui"),
            _node("rviz2", arguments=["-d", str(layout)]),
        ]
    )


def _node(name: str, **options: list) -> Node:
    return Node(package=name, executable=name, output="screen", **options)
