"""The launch plan for `ros2 launch`; imported by the launch files only."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# `launch` comes with a full ROS 2 only

from dataclasses import replace
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from dexgrasp_deploy.parameter_file import with_parameter_file
from dexgrasp_deploy.processes import (
    DISPLAY_NODE,
    EPISODE_NODE,
    PACKAGE,
    deploy_nodes,
    episode_node,
)
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.bringup import NodeSpec
from dexgrasp_sim.nodes.display.frames import COMMANDED

_DRIVERS = ("arm", "hand", "camera")
_SHOWN = ("robot_description", "markers", "display/image", "display/points")
"""The topics of deploy.rviz."""


def deployment(mode: str) -> LaunchDescription:
    """The nodes of `processes.deploy_nodes` with rviz and episodes as options.

    Args:
        mode: "mock", "sim" or "hardware".
    """
    share = Path(get_package_share_directory(PACKAGE))
    arguments = [
        DeclareLaunchArgument("bundle", description="policy bundle folder"),
        DeclareLaunchArgument(
            "params",
            default_value=str(share / "config" / f"{mode}.yaml"),
            description="ROS parameter file on top of the defaults",
        ),
        DeclareLaunchArgument("seed", default_value="0", description="seed of a simulated world"),
        DeclareLaunchArgument(
            "shadow", default_value="false", description="compute and show all, command nothing"
        ),
        DeclareLaunchArgument("record", default_value="", description="folder for recordings"),
        DeclareLaunchArgument(
            "calibration",
            default_value="",
            description="folder of `dexgrasp calibrate`; or none, as in training",
        ),
        DeclareLaunchArgument("episodes", default_value="0", description="episodes to run"),
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="of all nodes, where the robot's own drivers use the same topics",
        ),
        DeclareLaunchArgument("rviz", default_value="false", description="show the robot"),
    ]
    if mode == "hardware":
        arguments += [
            DeclareLaunchArgument(
                f"{kind}_driver",
                description="built-in driver or profile (`dexgrasp drivers`), or `module:Class`",
            )
            for kind in _DRIVERS
        ]
    nodes = OpaqueFunction(function=_plan, args=[mode])
    return LaunchDescription([*arguments, nodes])


def _plan(context: LaunchContext, mode: str) -> list[Node]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    drivers = {kind: value(f"{kind}_driver") for kind in _DRIVERS} if mode == "hardware" else {}
    shadow = {"true": True, "false": False}[value("shadow").lower()]
    nodes = deploy_nodes(
        *(mode, value("bundle"), drivers, int(value("seed")), shadow, value("record")),
        calibration=value("calibration"),
    )
    namespace = value("namespace")
    frames = _frames(Path(value("bundle")), namespace, shadow)
    if frames:
        nodes = [_without_frames(node) for node in nodes]
    nodes = with_parameter_file(nodes, Path(value("params")))
    if int(value("episodes")):
        nodes.append(episode_node(mode, value("bundle"), int(value("episodes"))))
    return [
        *(_node(spec, value("namespace")) for spec in nodes),
        *frames,
        _rviz(value("namespace")),
    ]


def _node(spec: NodeSpec, namespace: str) -> Node:
    action = LifecycleNode if spec.name == "policy_node" else Node
    return action(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        namespace=namespace,
        parameters=[dict(spec.parameters)],
        output="screen",
        on_exit=Shutdown(reason="all episodes are done") if spec.name == EPISODE_NODE else None,
    )


def _without_frames(spec: NodeSpec) -> NodeSpec:
    """The display node without the frames of the robot."""
    if spec.name != DISPLAY_NODE:
        return spec
    return replace(spec, parameters={**spec.parameters, "robot_frames": False})


def _frames(bundle: Path, namespace: str, shadow: bool) -> list[Node]:
    """robot_state_publisher for the robot as measured and as commanded; [] where there is none."""
    try:
        get_package_share_directory("robot_state_publisher")
    except PackageNotFoundError:
        return []
    urdf = read_manifest(bundle).task.load_robot().urdf_path.read_text()
    commands = "policy/safe" if shadow else "joint_command"
    return [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            name=name,
            namespace=namespace,
            parameters=[{"robot_description": urdf, "frame_prefix": prefix}],
            remappings=[("joint_states", topic)],
        )
        for name, prefix, topic in (
            ("robot_state_publisher", "", "joint_states"),
            ("commanded_state_publisher", COMMANDED, commands),
        )
    ]


def _rviz(namespace: str) -> Node:
    """What rviz:=true starts; its file names the topics without a namespace."""
    layout = Path(get_package_share_directory(PACKAGE)) / "rviz" / "deploy.rviz"
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(layout)],
        remappings=[(f"/{topic}", f"{namespace}/{topic}") for topic in _SHOWN if namespace],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
