"""What the task and the action spaces rely on in every robot's files."""

import itertools

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp_sim.control.palm_velocity.differential_ik import DifferentialIk
from dexgrasp_sim.physics.contact_model import SELF_COLLISION
from dexgrasp_sim.physics.mujoco.mjcf import RobotOptions, robot_spec
from dexgrasp_sim.robot.kinematics import Chain, Kinematics
from dexgrasp_sim.robot.robot import load_robot, robot_names

ROBOTS = {name: load_robot(name) for name in robot_names()}
PREGRASP_M = (-0.55, 0.10, 0.42)
REACH = {"kuka_allegro": (0.34, 0.60, 0.99), "franka_leap": (0.30, 0.62, 0.70)}
"""Lowest and highest grasp centre, m, that the palm reaches all over the laptop's spawn area, and
the largest share of half a joint's range that this takes."""

every_robot = pytest.mark.parametrize("robot", ROBOTS.values(), ids=ROBOTS)


def posture(robot, *synergies):
    """[J] rad: `pregrasp` with its synergies at these values."""
    q = torch.tensor(robot.postures["pregrasp"])
    for synergy, value in zip(robot.palm_velocity.synergies, synergies):
        q[robot.joint_indices(list(synergy.joints))] += value * torch.tensor(
            list(synergy.joints.values())
        )
    return q


def in_palm(robot, q, frames):
    """Positions [F, 3] m of frames in the palm's frame."""
    poses = Kinematics(robot, [robot.palm, *frames]).forward(q[None])
    return (poses.position[0, 1:] - poses.position[0, 0]) @ poses.rotation[0, 0]


@every_robot
def test_postures_are_within_the_limits(robot):
    flat = torch.tensor((*robot.postures["pregrasp"][robot.arm], *robot.flat_hand))
    corners = itertools.product(*(synergy.range for synergy in robot.palm_velocity.synergies))
    postures = [
        *robot.postures.values(),
        flat.tolist(),
        *(posture(robot, *values).tolist() for values in corners),
    ]
    for q in postures:
        assert len(q) == robot.num_joints
        assert np.all(robot.lower <= np.add(q, 1e-6)), q
        assert np.all(np.add(q, -1e-6) <= robot.upper), q


@every_robot
def test_no_posture_and_no_single_synergy_makes_the_robot_touch_itself(robot):
    synergies = robot.palm_velocity.synergies
    flat = torch.tensor((*robot.postures["pregrasp"][robot.arm], *robot.flat_hand))
    postures = [*robot.postures.values(), flat]
    for moved, synergy in enumerate(synergies):
        values = [[value * (moved == i) for i in range(len(synergies))] for value in synergy.range]
        postures += [posture(robot, *each) for each in values]
    options = RobotOptions(gains=robot.gains["stiff"], collision=SELF_COLLISION)
    model = robot_spec(robot, options).compile()
    data = mujoco.MjData(model)
    for q in postures:
        data.qpos[:] = q
        mujoco.mj_forward(model, data)
        assert not data.ncon, [model.geom(geom).name for geom in data.contact.geom[0]]
    data.qpos[robot.hand] = robot.upper[robot.hand]
    mujoco.mj_forward(model, data)
    assert data.ncon, "a fist does"


@every_robot
def test_pregrasp_holds_the_palm_down_over_the_spawn_area(robot):
    poses = Kinematics(robot, [robot.grasp_center, robot.palm]).forward(posture(robot)[None])
    assert poses.position[0, 0].tolist() == pytest.approx(PREGRASP_M, abs=1e-3)
    assert torch.allclose(poses.rotation[0, 0], poses.rotation[0, 1], atol=1e-6)
    assert poses.rotation[0, 0, :, 2].tolist() == pytest.approx([0, 0, -1], abs=1e-3)


@every_robot
def test_the_palm_has_x_along_the_fingers_y_to_the_ring_finger_and_z_out_of_its_face(robot):
    straight = torch.tensor((*robot.postures["pregrasp"][robot.arm], *robot.flat_hand))
    tips = in_palm(robot, straight, robot.fingertips)
    assert (tips[:3, 0] > 0.12).all()
    index, middle, ring = tips[:3, 1]
    assert index < middle - 0.02 < ring - 0.04
    closing = [float(synergy.closes) for synergy in robot.palm_velocity.synergies]
    shut = in_palm(robot, posture(robot, *closing), robot.fingertips)
    assert (shut[:, 2] > 0.05).all() and (tips[:3, 2] < 0.03).all()


@every_robot
def test_fingers_and_thumb_close_on_the_grasp_center_from_opposite_sides(robot):
    closing = torch.tensor([float(each.closes) for each in robot.palm_velocity.synergies])
    gaps = []
    for value in (0.0, 0.5, 1.0):
        q = posture(robot, *(value * closing))
        *tips, center = in_palm(robot, q, (*robot.fingertips, robot.grasp_center))
        gaps.append(min(tip[0] for tip in tips[:3]) - tips[3][0])
        if value < 1.0:
            assert tips[3][0] < center[0] - 0.01 < center[0] + 0.01 < tips[1][0]
    assert gaps[0] > 0.09 and gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.03


@every_robot
def test_tips_lie_on_their_spheres_and_point_outward(robot):
    for finger in robot.fingers:
        joint = robot.parent_joint[finger.tip]
        (sphere,) = [s for s in robot.links[joint.parent].collisions if s.kind == "sphere"]
        center, tip = sphere.origin.matrix[:3, 3], joint.origin.matrix
        outward = (tip[:3, 3] - center) / sphere.size[0]
        assert outward.tolist() == pytest.approx(tip[:3, 0].tolist(), abs=0.01)


@every_robot
def test_the_palm_reaches_all_of_the_spawn_area_from_pregrasp(robot):
    offsets = (-0.1, 0.0, 0.1)
    *heights_m, share = (PREGRASP_M[2], *REACH[robot.name])
    targets = torch.tensor(
        [
            (PREGRASP_M[0] + x, PREGRASP_M[1] + y, z)
            for x, y, z in itertools.product(offsets, offsets, heights_m)
        ]
    )
    chain = Chain(robot, robot.grasp_center)
    arm = chain.joint_indices
    assert arm == list(range(7))
    lower, upper = (torch.from_numpy(bound[arm]).float() for bound in (robot.lower, robot.upper))
    start = posture(robot)
    solver = DifferentialIk(chain, start[arm], lower, upper, torch.full((7,), 0.1))
    q = start.repeat(len(targets), 1)
    rotation = chain.forward(q).rotation
    for _ in range(100):
        q = solver.solve(q, targets, rotation)
    reached = chain.forward(q)
    assert torch.linalg.norm(reached.position - targets, dim=1).max() < 2e-3
    assert (reached.rotation - rotation).abs().max() < 0.02  # rotations give way to positions
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    assert ((q[:, arm] - middle) / half).abs().max() < share


@every_robot
def test_stiff_gains_follow_a_moving_target_a_tenth_of_a_second_behind(robot):
    spec = robot_spec(robot, RobotOptions(gains=robot.gains["stiff"]))
    spec.option.timestep = 1 / 120
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:] = data.ctrl[:] = robot.postures["pregrasp"]
    speed_rad_s = 0.3
    for _ in range(120):
        data.ctrl[robot.arm] += speed_rad_s / 120
        mujoco.mj_step(model, data)
    lag_s = (data.ctrl - data.qpos)[robot.arm] / speed_rad_s
    assert lag_s.min() > 0.05 and lag_s.max() < 0.11
