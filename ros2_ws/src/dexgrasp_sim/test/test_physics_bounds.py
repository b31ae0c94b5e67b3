"""What the reference physics (1/120 s) must keep: no energy from nowhere, no deep penetration."""

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.objects.sets import object_set
from dexgrasp_sim.physics.mujoco.models import OBJECT, build_models
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import RESULT_SPECS
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
JOINT_NAMES = ROBOT.joint_names

CONFIG = GraspConfig(stagger_starts=False)
GRAVITY = 9.81
OBJECTS = object_set("laptop")
SECONDS_3 = 360


def make_model(item=OBJECTS[0]):
    [model] = build_models(CONFIG.scene(1), [item])
    assert model.opt.timestep == pytest.approx(1 / 120)
    return model


def make_data(model):
    """The robot in its start posture, where its servos hold it."""
    data = mujoco.MjData(model)
    for name, angle in zip(JOINT_NAMES, ARM_PREGRASP + HAND_REST):
        data.joint(name).qpos = data.actuator(name).ctrl = angle
    return data


def swing(model, seed):
    """[T] J: kinetic energy of the robot, pushed and then left to itself."""
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    data = make_data(model)
    columns = [model.joint(name).dofadr[0] for name in JOINT_NAMES]
    data.qvel[columns] = np.random.default_rng(seed).uniform(-1.0, 1.0, len(columns))
    energies = []
    for _ in range(SECONDS_3):
        mujoco.mj_step1(model, data)
        velocity, momentum = np.zeros(model.nv), np.zeros(model.nv)
        velocity[columns] = data.qvel[columns]
        mujoco.mj_mulM(model, data, momentum, velocity)
        energies.append(velocity @ momentum / 2)
        mujoco.mj_step2(model, data)
    return np.array(energies)


@pytest.mark.parametrize("seed", range(4))
def test_an_undriven_arm_slows_down(seed):
    """Its weight is compensated, so that damping alone changes its energy."""
    energies = swing(make_model(), seed)
    assert energies[0] > 0.1
    assert np.diff(energies).max() <= 0.0
    assert energies[-1] < 0.3 * energies[0]


@pytest.mark.parametrize("seed", range(4))
def test_an_undriven_arm_without_friction_gains_no_energy(seed):
    model = make_model()
    model.dof_damping[:] = 0.0
    energies = swing(model, seed)
    assert energies.max() < 1.03 * energies[0]  # of the integrator; 1.008 where this was written


def mechanical_energy(model, data):
    """J: of the object, its height counted from the table's top, as the integrator keeps it.

    Velocity first, then position: what stays exactly equal in free fall has g dt v / 2 less.
    """
    body, joint = model.body(OBJECT), data.joint(OBJECT)
    velocity = np.zeros(6)  # angular, then linear
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body.id, velocity, 0)
    spin = data.ximat[body.id].reshape(3, 3).T @ velocity[:3]
    kinetic = body.mass[0] * velocity[3:] @ velocity[3:] + model.body_inertia[body.id] @ spin**2
    height = joint.qpos[2] - CONFIG.table.top_m - joint.qvel[2] * model.opt.timestep / 2
    return kinetic / 2 + body.mass[0] * GRAVITY * height


def throw(item, seed):
    """Height energies [T] J and deepest contacts [T] m of an object thrown on the table."""
    model = make_model(item)
    data, random = make_data(model), np.random.default_rng(seed)
    joint = data.joint(OBJECT)
    joint.qpos = [-0.75, 0.1, CONFIG.table.top_m + 0.25, 1.0, 0.0, 0.0, 0.0]  # clear of the hand
    joint.qvel = [*(0.2 * random.normal(size=2)), 0.0, *(6.0 * random.normal(size=3))]
    energies, depths = [], []
    for _ in range(SECONDS_3):
        mujoco.mj_step1(model, data)
        energies.append(mechanical_energy(model, data))
        depths.append(-min((contact.dist for contact in data.contact), default=0.0))
        mujoco.mj_step2(model, data)
    return np.array(energies), np.array(depths)


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.name)
@pytest.mark.parametrize("seed", range(2))
def test_a_thrown_object_never_has_more_energy_than_at_first(item, seed):
    energies, depths = throw(item, seed)
    assert depths.max() > 0.0, "it hit the table"
    assert energies.max() <= energies[0] * (1 + 1e-9)
    flight = energies[: np.flatnonzero(depths > 0)[0]]
    assert len(flight) > 10
    assert np.ptp(flight) < 0.01 * flight[0]


@pytest.mark.parametrize("item", object_set("primitives"), ids=lambda item: item.name)
def test_a_resting_object_sinks_in_less_than_half_a_millimetre(item):
    model = make_model(item)
    data = make_data(model)
    height = CONFIG.table.top_m + item.solid.rest_height_m + 0.001
    data.joint(OBJECT).qpos = [-0.75, 0.1, height, 1.0, 0.0, 0.0, 0.0]
    for _ in range(SECONDS_3 // 3):
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    depths = [-contact.dist for contact in data.contact]
    assert len(depths) >= 3
    assert 0.0 < max(depths) < 0.0005
    assert np.linalg.norm(data.joint(OBJECT).qvel[:3]) < 1e-3


def grip_depth_m(engine, env):
    """How deep the hand is in the object; None where fewer than three contacts hold it."""
    model, data = engine._batch.get_model(env), engine._batch.get_data(env)
    mujoco.mj_forward(model, data)
    bodies = {model.body(OBJECT).id, 0}
    depths = [
        -contact.dist
        for contact in data.contact
        if len(bodies & {int(model.geom_bodyid[geom]) for geom in contact.geom}) == 1
    ]
    return max(depths) if len(depths) >= 3 else None


def test_a_squeezed_object_is_held_by_its_surface():
    """A grasp lets a finger 3 to 4 mm into a 5 cm object; contacts this soft are MuJoCo's."""
    count = len(OBJECTS)
    env = make_grasp_env(CONFIG, count, 0, 1, ())
    out = {spec.name: spec.empty(count) for spec in RESULT_SPECS}
    env.reset(out)
    policy = ScriptedPolicy(env)
    depths = [[] for _ in range(count)]
    for step in range(CONFIG.episode_steps - 2):
        env.step(policy.act(), out)
        if step > 45:  # lifted and held
            for index in range(count):
                depths[index].append(grip_depth_m(env.engine, index))
    lifts = env.engine.object_position[:, 2] - CONFIG.table.top_m
    env.close()
    assert torch.all(lifts > 0.15)
    for held in depths:
        assert None not in held
        assert 0.0 < max(held) < 0.005


def test_images_after_a_reset_show_the_new_state():
    env = make_grasp_env(CONFIG, 2, 0, 1, ("depth",))
    names = [spec.name for spec in (*env.observation_specs, *RESULT_SPECS)]
    specs = dict(zip(names, (*env.observation_specs, *RESULT_SPECS)))
    out, other = ({name: spec.empty(2) for name, spec in specs.items()} for _ in range(2))
    env.reset(out)
    for _ in range(CONFIG.episode_steps):
        before = out["depth"].clone()
        env.step(torch.ones(2, env.action_dim), out)
    assert out["truncated"].any() or out["terminated"].any()
    twin = make_grasp_env(CONFIG, 2, 0, 1, ("depth",))
    twin.reset(other)
    twin.load_state_dict(env.state_dict(), other)
    assert torch.equal(out["depth"], other["depth"])  # drawn from the state alone
    assert not torch.equal(out["depth"], before)
    image = torch.zeros_like(out["depth"])
    env.engine.render_depth(image)
    assert torch.equal(image, out["depth"])
    env.close()
    twin.close()
