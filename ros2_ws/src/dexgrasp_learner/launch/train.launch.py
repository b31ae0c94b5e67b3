"""A training run with its nodes: `ros2 launch dexgrasp_learner train.launch.py config:=...`."""

import shlex
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dexgrasp_learner.run.processes import LEARNER, train_nodes
from dexgrasp_sim.bringup import NodeSpec

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
    return [*map(_node, nodes), _rviz()]


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


def _rviz() -> Node:
    """What rviz:=true starts; the nodes of the workers publish the frames that it needs."""
    layout = Path(get_package_share_directory("dexgrasp_learner")) / "rviz" / "train.rviz"
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(layout)],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
