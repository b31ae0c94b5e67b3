"""The console scripts of this package's nodes."""

from dexgrasp_sim.nodes.program import node_program

camera_node = node_program("dexgrasp_deploy.nodes.camera_node")
display_node = node_program("dexgrasp_deploy.nodes.display_node")
episode_node = node_program("dexgrasp_deploy.nodes.episode_node")
policy_node = node_program("dexgrasp_deploy.nodes.policy_node")
recorder_node = node_program("dexgrasp_deploy.nodes.recorder_node")
robot_driver_node = node_program("dexgrasp_deploy.nodes.robot_driver_node")
