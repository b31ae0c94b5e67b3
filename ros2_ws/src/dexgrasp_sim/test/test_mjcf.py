import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_sim.physics.contact_model import OBJECT_COLLISION, SELF_COLLISION, TABLE_COLLISION
from dexgrasp_sim.physics.mujoco.mjcf import RobotOptions, add_robot, robot_spec
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
FABRIC_DEFAULT_POSTURE = ROBOT.postures["relaxed"]
GAINS = ROBOT.gains
JOINT_NAMES = ROBOT.joint_names
RESET_POSTURE = ROBOT.postures["reset"]
TASK_FRAMES = ROBOT.task_frames

HAND_OPEN = ROBOT.postures["pregrasp"][ROBOT.hand]
MODEL = robot_spec(ROBOT).compile()
BODIES = tuple(name for name in ROBOT.links if ROBOT.links[name].inertial)
KINEMATICS = Kinematics(ROBOT, (*BODIES, *TASK_FRAMES), dtype=torch.float64)
postures = st.lists(st.floats(0.0, 1.0), min_size=23, max_size=23).map(
    lambda u: ROBOT.lower + np.array(u) * (ROBOT.upper - ROBOT.lower)
)


def model_with(gains="stiff", **options):
    return robot_spec(ROBOT, RobotOptions(GAINS[gains], **options)).compile()


def inertia_in_link_axes(body):
    axes = np.empty(9)
    mujoco.mju_quat2Mat(axes, body.iquat)
    axes = axes.reshape(3, 3)
    return axes @ np.diag(body.inertia) @ axes.T


def step(model, data, seconds):
    model.opt.timestep, model.opt.integrator = 1 / 120, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    mujoco.mj_step(model, data, nstep=round(seconds * 120))


def test_joints_and_limits():
    assert tuple(MODEL.joint(i).name for i in range(MODEL.njnt)) == JOINT_NAMES
    assert MODEL.nq == MODEL.nv == 23
    np.testing.assert_array_equal(MODEL.jnt_range, np.stack((ROBOT.lower, ROBOT.upper), 1))
    assert MODEL.jnt_limited.all()
    damping = [ROBOT.joints[name].damping for name in JOINT_NAMES]
    np.testing.assert_array_equal(MODEL.dof_damping, damping)


@pytest.mark.parametrize("name", GAINS)
def test_actuators(name):
    gains = GAINS[name]
    model = model_with(name)
    assert tuple(model.actuator(i).name for i in range(model.nu)) == JOINT_NAMES
    np.testing.assert_array_equal(model.actuator_trnid[:, 0], np.arange(23))
    np.testing.assert_array_equal(model.actuator_gainprm[:, 0], gains.stiffness)
    np.testing.assert_array_equal(model.actuator_biasprm[:, 1], -np.array(gains.stiffness))
    np.testing.assert_array_equal(model.actuator_biasprm[:, 2], -np.array(gains.damping))
    np.testing.assert_array_equal(model.dof_armature, gains.armature)
    np.testing.assert_array_equal(model.actuator_forcerange[:, 1], ROBOT.effort_limit)
    np.testing.assert_array_equal(model.actuator_forcerange[:, 0], -ROBOT.effort_limit)
    assert model.actuator_ctrllimited.all()


@pytest.mark.parametrize("name", BODIES)
def test_mass_and_inertia(name):
    inertial, body = ROBOT.links[name].inertial, MODEL.body(name)
    assert inertial is not None
    assert body.mass[0] == inertial.mass
    np.testing.assert_allclose(body.ipos, inertial.origin.xyz, atol=1e-12)
    inertia = inertia_in_link_axes(body)
    np.testing.assert_allclose(inertia, inertial.matrix, rtol=1e-9, atol=1e-12)
    assert MODEL.body_gravcomp[body.id] == 1


def test_total_mass_is_the_urdfs():
    assert MODEL.body_subtreemass[0] == pytest.approx(ROBOT.total_mass)


@pytest.mark.parametrize(
    "name", [name for name in BODIES if not name.startswith(("iiwa7", "palm"))]
)
def test_hand_inertials_are_those_of_the_shapes_at_800_kg_per_m3(name):
    spec = robot_spec(ROBOT)
    for body in spec.bodies:
        body.explicitinertial = False
    for geom in spec.geoms:
        geom.density = 800
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
    body, wanted = spec.compile().body(name), MODEL.body(name)
    np.testing.assert_allclose(body.mass, wanted.mass, rtol=1e-4)
    np.testing.assert_allclose(body.ipos, wanted.ipos, atol=1e-6)
    np.testing.assert_allclose(
        inertia_in_link_axes(body), inertia_in_link_axes(wanted), rtol=1e-3, atol=1e-10
    )


@settings(max_examples=30, deadline=None)
@given(postures)
def test_frames_agree_with_the_torch_kinematics(q):
    data = mujoco.MjData(MODEL)
    data.qpos[:] = q
    mujoco.mj_kinematics(MODEL, data)
    poses = KINEMATICS.forward(torch.tensor(q)[None])
    views = [data.body(name) for name in BODIES] + [data.site(name) for name in TASK_FRAMES]
    position = np.array([view.xpos for view in views])
    rotation = np.array([view.xmat.reshape(3, 3) for view in views])
    np.testing.assert_allclose(poses.position[0], position, atol=1e-5)
    np.testing.assert_allclose(poses.rotation[0], rotation, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(postures)
def test_jacobian_agrees_with_mujoco(q):
    data = mujoco.MjData(MODEL)
    data.qpos[:] = q
    mujoco.mj_kinematics(MODEL, data)
    mujoco.mj_comPos(MODEL, data)
    jacobian = np.zeros((6, 23))
    for frame in TASK_FRAMES:
        mujoco.mj_jacSite(MODEL, data, jacobian[:3], jacobian[3:], MODEL.site(frame).id)
        own = KINEMATICS.jacobian(torch.tensor(q)[None], frame)[0]
        np.testing.assert_allclose(own, jacobian, atol=1e-6)


def test_geoms_are_the_collision_shapes():
    names = {
        f"{link.name}_{index}"
        for link in ROBOT.links.values()
        for index in range(len(link.collisions))
    }
    assert {MODEL.geom(i).name for i in range(MODEL.ngeom)} == names
    box = ROBOT.links["palm_link"].collisions[0]
    np.testing.assert_allclose(2 * MODEL.geom("palm_link_0").size, box.size)
    cylinder = ROBOT.links["iiwa7_link_2"].collisions[0]
    np.testing.assert_allclose(MODEL.geom("iiwa7_link_2_0").size[:2] * [1, 2], cylinder.size)
    np.testing.assert_allclose(MODEL.geom("index_link_3_1").rgba, [0.9, 0.9, 0.88, 1], atol=1e-6)


def test_fingertip_frames_lie_on_the_fingertips():
    data = mujoco.MjData(MODEL)
    data.qpos[:] = FABRIC_DEFAULT_POSTURE
    mujoco.mj_kinematics(MODEL, data)
    for finger in ("index", "middle", "ring", "thumb"):
        sphere = MODEL.geom(f"{finger}_link_3_1")
        outward = data.site(f"{finger}_tip").xmat.reshape(3, 3)[:, 0]
        surface = data.geom_xpos[sphere.id] + sphere.size[0] * outward
        np.testing.assert_allclose(data.site(f"{finger}_tip").xpos, surface, atol=1e-4)


def test_robot_touches_table_and_object_and_by_choice_itself():
    def collides(a, b):
        return bool(a.contype & b.conaffinity or b.contype & a.conaffinity)

    robot = RobotOptions(GAINS["stiff"]).collision
    assert collides(robot, TABLE_COLLISION) and collides(robot, OBJECT_COLLISION)
    assert collides(OBJECT_COLLISION, TABLE_COLLISION)
    assert collides(OBJECT_COLLISION, OBJECT_COLLISION) is False
    assert not collides(robot, robot) and collides(SELF_COLLISION, SELF_COLLISION)


@pytest.mark.parametrize(
    "posture",
    [RESET_POSTURE, FABRIC_DEFAULT_POSTURE, ARM_PREGRASP + HAND_OPEN, (0.0,) * 23],
)
def test_postures_do_not_touch_themselves(posture):
    model = model_with(collision=SELF_COLLISION)
    data = mujoco.MjData(model)
    data.qpos[:] = posture
    mujoco.mj_forward(model, data)
    assert data.ncon == 0


def test_a_closed_fist_touches_itself_only_if_asked():
    fist = np.array(ARM_PREGRASP + (0.0, 1.7, 1.7, 1.7) * 3 + (1.5, 0.3, 1.2, 1.2))
    contacts = []
    for options in ({}, {"collision": SELF_COLLISION}):
        model = model_with(**options)
        data = mujoco.MjData(model)
        data.qpos[:] = fist
        mujoco.mj_forward(model, data)
        contacts.append(data.ncon)
    assert contacts[0] == 0 < contacts[1]


@pytest.mark.parametrize("name", GAINS)
def test_servos_hold_and_reach_a_posture_without_gravity_sag(name):
    model = model_with(name)
    data = mujoco.MjData(model)
    start = np.array(ARM_PREGRASP + HAND_OPEN)
    data.qpos[:] = data.ctrl[:] = start
    step(model, data, 1.0)
    np.testing.assert_allclose(data.qpos, start, atol=1e-9)
    target = start + 0.1
    data.ctrl[:] = target
    step(model, data, 6.0)
    np.testing.assert_allclose(data.qpos, np.minimum(target, ROBOT.upper), atol=2e-3)


def test_dry_friction_is_opt_in():
    assert not MODEL.dof_frictionloss.any()
    model = model_with(friction_scale=2.0)
    wanted = [2 * ROBOT.joints[name].friction for name in JOINT_NAMES]
    np.testing.assert_array_equal(model.dof_frictionloss, wanted)


def test_robot_joins_a_spec_that_has_a_scene():
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[1, 1, 0.1])
    add_robot(spec, ROBOT, frames=("palm_link",))
    model = spec.compile()
    assert model.ngeom == MODEL.ngeom + 1 and model.nsite == 1


def test_mjcf_text_compiles_to_the_same_model():
    text = robot_spec(ROBOT)
    text.compile()
    again = mujoco.MjModel.from_xml_string(text.to_xml())
    np.testing.assert_allclose(again.body_pos, MODEL.body_pos, atol=1e-5)
    np.testing.assert_allclose(again.jnt_range, MODEL.jnt_range, atol=1e-5)
