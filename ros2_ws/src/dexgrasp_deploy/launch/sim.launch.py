"""A policy bundle on the simulated twin: `ros2 launch dexgrasp_deploy sim.launch.py`."""

from launch import LaunchDescription

from dexgrasp_deploy.nodes.launching import deployment


def generate_launch_description() -> LaunchDescription:
    return deployment("sim")
