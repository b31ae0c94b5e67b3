"""Frames of the robot over real DDS, against MuJoCo and the project's own kinematics."""

import mujoco
import numpy as np
import pytest
import rclpy
import torch
from scipy.spatial.transform import Rotation

from dexgrasp_sim.nodes.conversions import BASE_FRAME
from dexgrasp_sim.nodes.display.frames import COMMANDED, FrameTopics, RobotFrames, camera_frames
from dexgrasp_sim.physics.mujoco.mjcf import robot_spec
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot, robot_names
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from test_support.displays import FrameTree
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node("frames")
    yield node
    node.destroy_node()
    rclpy.shutdown()


def postures(robot, seed=0):
    """A random posture [J] within the limits."""
    generator = np.random.default_rng(seed)
    return generator.uniform(robot.lower, robot.upper)


def spin_until(node, condition, what):
    wait_until(condition, what, meanwhile=lambda: rclpy.spin_once(node, timeout_sec=0.05))


@pytest.mark.parametrize("name", robot_names())
def test_every_link_is_where_mujoco_has_it(node, name):
    robot = load_robot(name)
    topics, measured, ghost = FrameTopics(node), RobotFrames(robot), RobotFrames(robot, COMMANDED)
    topics.fix(measured.fixed)
    topics.fix(ghost.fixed)
    tree = FrameTree(node)  # joins after the fixed frames were sent
    at, wanted = postures(robot, 1), postures(robot, 2)
    stamp = node.get_clock().now().to_msg()
    spin_until(node, lambda: topics.watched, "a reader")
    positions = dict(zip(robot.joint_names, at))
    topics.move(measured.moving(positions, stamp))
    topics.move(ghost.moving(dict(zip(robot.joint_names, wanted)), stamp))
    frames = len(robot.joints)
    spin_until(node, lambda: len(tree.parents) == 2 * frames + 1, lambda: f"{tree.parents}")

    model = robot_spec(robot).compile()
    data = mujoco.MjData(model)
    for joint, angle in positions.items():
        data.joint(joint).qpos = angle
    mujoco.mj_forward(model, data)
    bodies = {model.body(index).name for index in range(model.nbody)} & set(robot.links)
    assert len(bodies) > len(robot.joint_names)
    for link in bodies:
        pose = tree.pose(link)
        np.testing.assert_allclose(pose[:3, 3], data.body(link).xpos, atol=1e-9)
        np.testing.assert_allclose(pose[:3, :3].ravel(), data.body(link).xmat, atol=1e-9)

    for prefix, angles in (("", at), (COMMANDED, wanted)):
        own = Kinematics(robot, robot.frames, dtype=torch.float64).forward(
            torch.from_numpy(angles)[None]
        )
        for index, link in enumerate(robot.frames):
            pose = tree.pose(prefix + link)
            np.testing.assert_allclose(pose[:3, 3], own.position[0, index], atol=1e-9)
            np.testing.assert_allclose(pose[:3, :3], own.rotation[0, index], atol=1e-9)


def test_arm_and_hand_may_be_measured_apart():
    robot = load_robot()
    frames = RobotFrames(robot)
    stamp = rclpy.time.Time(seconds=7).to_msg()
    arm = dict.fromkeys(robot.arm_joints, 0.1)
    moved = frames.moving({**arm, "unknown": 1.0, robot.hand_joints[0]: float("nan")}, stamp)
    children = {robot.joints[name].child for name in robot.arm_joints}
    assert {each.child_frame_id for each in moved} == children
    assert {each.header.stamp.sec for each in moved} == {7}


def test_a_camera_looks_along_z_with_x_to_the_right():
    """REP 103, at the point that the task says it looks at."""
    task = GraspConfig()
    depth, left, right = camera_frames(BASE_FRAME, task.camera, 0.06, ("depth", "left", "right"))
    assert [each.child_frame_id for each in (depth, left, right)] == [
        f"camera_{name}_optical_frame" for name in ("depth", "left", "right")
    ]
    place, turn = left.transform.translation, left.transform.rotation
    axes = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    position = np.array([place.x, place.y, place.z])
    np.testing.assert_allclose(position, task.camera.position_m)
    forward = np.subtract(task.camera.look_at_m, position)
    np.testing.assert_allclose(axes[:, 2], forward / np.linalg.norm(forward))
    assert axes[2, 0] == pytest.approx(0) and axes[2, 1] < 0, "x is level, y points down"
    other = right.transform.translation
    np.testing.assert_allclose([other.x, other.y, other.z], position + 0.06 * axes[:, 0])
