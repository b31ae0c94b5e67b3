"""A policy bundle on drivers that only obey: `ros2 launch dexgrasp_deploy mock.launch.py`."""

from launch import LaunchDescription

from dexgrasp_deploy.nodes.launching import deployment


def generate_launch_description() -> LaunchDescription:
    return deployment("mock")
