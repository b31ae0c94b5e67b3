"""A training run with its nodes: `ros2 launch dexgrasp_learner train.launch.py config:=...`."""

import json
import shlex
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dexgrasp_learner.run.processes import LEARNER, train_nodes
from dexgrasp_sim.bringup import NodeSpec
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, load_robot

_CHECKPOINT_S = "300"
"""The learner may need the rest of an iteration and a checkpoint before it is killed."""


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("config", default_value="", description="YAML file of the run"),
        DeclareLaunchArgument("resume", default_value="", description="run folder to continue"),
        DeclareLaunchArgument("runs", default_value="runs", description="parent of run folders"),
        DeclareLaunchArgument("run_id", default_value="", description="name of the run"),
        DeclareLaunchArgument(
            "overrides", default_value="", description="`a.b=value c=value` on top of the file"
        ),
        DeclareLaunchArgument("env_index", default_value="0", description="who is looked at"),
        DeclareLaunchArgument("rviz", default_value="false", description="show that environment"),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_plan)])


def _plan(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    nodes = train_nodes(
        value("config"),
        value("run_id"),
        value("runs"),
        value("resume"),
        shlex.split(value("overrides")),
        int(value("env_index")),
    )
    task = next((json.loads(spec.parameters["task"]) for spec in nodes[1:]), {})
    return [*map(_node, nodes), *_viewers(task.get("robot", DEFAULT_ROBOT))]


def _node(spec: NodeSpec) -> Node:
    share = Path(get_package_share_directory(spec.package))
    learner = {"on_exit": Shutdown(reason="the run has ended"), "sigterm_timeout": _CHECKPOINT_S}
    return Node(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        parameters=[share / "config" / f"{spec.executable}.yaml", dict(spec.parameters)],
        output="screen",
        **(learner if spec.name == LEARNER else {}),
    )


def _viewers(robot: str) -> list[Node]:
    """What rviz:=true starts: rviz, and the transforms of the robot's links where it can."""
    condition = IfCondition(LaunchConfiguration("rviz"))
    layout = Path(get_package_share_directory("dexgrasp_learner")) / "rviz" / "train.rviz"
    rviz = Node(
        package="rviz2", executable="rviz2", arguments=["-d", str(layout)], condition=condition
    )
    try:
        get_package_share_directory("robot_state_publisher")
    except PackageNotFoundError:
        return [rviz]
    transforms = Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        parameters=[{"robot_description": load_robot(robot).urdf_path.read_text()}],
        condition=condition,
    )
    return [transforms, rviz]
