"""A policy bundle on your robot: name its drivers as `arm_driver:=lbr` and so on.

The policy starts unconfigured: `ros2 lifecycle set /policy_node configure`, then `activate`.
"""

from launch import LaunchDescription

from dexgrasp_deploy.nodes.launching import deployment


def generate_launch_description() -> LaunchDescription:
    return deployment("hardware")
