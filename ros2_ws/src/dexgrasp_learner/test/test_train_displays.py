"""What rviz gets of a training: real processes over real DDS, against train.rviz."""

import os
from pathlib import Path

import numpy as np
import pytest
import rclpy
import torch

from dexgrasp_learner.run.processes import train_nodes
from dexgrasp_sim.bringup import NodeGroup
from dexgrasp_sim.nodes.display.frames import COMMANDED
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.ros_environment import find_workspace_root
from test_support.displays import FrameTree, displays, fixed_frame, mismatch
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

RVIZ = Path(__file__).parents[1] / "rviz" / "train.rviz"
SMOKE = find_workspace_root() / "config" / "smoke.yaml"
ENDLESS = ["simulators.num_envs=8", "training.iterations=100000"]


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node("watcher")
    yield node
    node.destroy_node()
    rclpy.shutdown()


def test_rviz_gets_everything_of_a_training(node, tmp_path):
    shown = list(displays(RVIZ))
    tree, newest, robot = FrameTree(node), {}, load_robot()

    def until(condition, what):
        wait_until(condition, what, meanwhile=lambda: rclpy.spin_once(node, timeout_sec=0.1))

    with NodeGroup(
        train_nodes(SMOKE, runs=tmp_path / "runs", overrides=ENDLESS), os.environ, tmp_path
    ):
        until(
            lambda: not any(mismatch(node, each) for each in shown),
            lambda: f"{[mismatch(node, each) for each in shown]}",
        )
        for each in shown:
            node.create_subscription(
                each.kind, each.topic, lambda m, t=each.topic: newest.update({t: m}), each.qos
            )
        until(lambda: len(newest) == 4, lambda: f"more than {list(newest)}")
        frames = {prefix + name for name in robot.frames for prefix in ("", COMMANDED)}
        until(lambda: frames - {"base"} <= set(tree.parents), "the frames")
    root = fixed_frame(RVIZ)
    for frame in {newest[f"/display/{name}"].header.frame_id for name in ("image", "points")}:
        tree.pose(frame, root)
    namespaces = {marker.ns for marker in newest["/markers"].markers}
    assert namespaces >= {"table", "object", "goal", "workspace", "status"}
    assert newest["/display/image"].encoding == "rgb8"
    assert newest["/display/points"].width > 100

    # the palm is where the kinematics have it at the joint angles that the frames contain
    joints = [robot.joints[name] for name in robot.joint_names]
    turns = [
        np.linalg.inv(each.origin.matrix[:3, :3]) @ tree.parents[each.child][1][:3, :3]
        for each in joints
    ]
    angles = [
        np.arctan2(
            np.array(joint.axis)
            @ (turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]),
            np.trace(turn) - 1,
        )
        for joint, turn in zip(joints, turns)
    ]
    kinematics = Kinematics(robot, [robot.palm], dtype=torch.float64)
    palm = kinematics.forward(torch.tensor(np.array(angles))[None])
    np.testing.assert_allclose(tree.pose(robot.palm)[:3, 3], palm.position[0, 0], atol=1e-6)
    assert (np.array(angles) >= robot.lower - 0.05).all()
    assert (np.array(angles) <= robot.upper + 0.05).all()
