"""A robot in rviz with a slider per joint: `ros2 launch dexgrasp_sim view_robot.launch.py`.

Another robot than the default: `robot:=NAME`, or the path of its `robot.yaml`.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, load_robot


def generate_launch_description() -> LaunchDescription:
    robot = DeclareLaunchArgument(
        "robot", default_value=DEFAULT_ROBOT, description="name or robot.yaml"
    )
    return LaunchDescription([robot, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Node]:
    layout = Path(get_package_share_directory("dexgrasp_sim")) / "rviz" / "robot.rviz"
    robot = load_robot(LaunchConfiguration("robot").perform(context))
    description = {"robot_description": robot.urdf_path.read_text()}
    return [
        _node("robot_state_publisher", parameters=[description]),
        _node("joint_state_publisher_gui"),
        _node("rviz2", arguments=["-d", str(layout)]),
    ]


def _node(name: str, **options: list) -> Node:
    return Node(package=name, executable=name, output="screen", **options)
