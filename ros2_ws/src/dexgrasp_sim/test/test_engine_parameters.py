"""What every physics backend does with pushes and with parameters of its environments."""

import pytest
import torch

from dexgrasp_sim.physics.engine import PhysicsParameters
from engine_lab import (
    CONFIG,
    GRAVITY,
    PREGRASP,
    ROBOT,
    assert_same,
    on,
    put,
    rest,
    snapshot,
    upright,
)


def boxes(lab, height_m=0.0, **parameters):
    """Two boxes away from the hand, the second one with other physics."""
    engine = lab.engine(count=2, object_of_env=(0, 0))
    values = PhysicsParameters.nominal(1, 23, engine.device)
    for name, value in parameters.items():
        getattr(values, name).fill_(value)
    engine.set_parameters(on(engine, [1]), values)
    return put(engine, upright(0.05 + height_m, 2))


def push(engine, force, steps=1):
    forces = on(engine, [force] * engine.num_envs)
    engine.push_objects(forces, torch.zeros_like(forces))
    return rest(engine, steps)


def test_a_push_lasts_until_the_next_call_or_the_reset(lab):
    engine = boxes(lab, height_m=0.8)
    mass = engine.object_mass[0].item()
    gained = 0.1 * CONFIG.control_dt_s / mass
    push(engine, (0.1, 0.0, 0.0))
    assert engine.object_velocity[:, 0].tolist() == pytest.approx([gained] * 2, rel=1e-2)
    rest(engine)
    assert engine.object_velocity[:, 0].tolist() == pytest.approx([2 * gained] * 2, rel=1e-2)
    put(engine, upright(0.85), ids=[0])
    rest(engine)
    assert engine.object_velocity[0, 0].abs() < 1e-4
    push(engine, (0.0, 0.0, 0.0))
    assert engine.object_velocity[1, 0].item() == pytest.approx(3 * gained, rel=1e-2)


def test_a_heavier_object_accelerates_less(lab):
    engine = boxes(lab, height_m=0.2, object_mass_scale=3.0)
    mass = engine.object_mass.tolist()
    assert mass[1] == pytest.approx(3 * mass[0])
    velocity = push(engine, (0.1, 0.0, 0.0)).object_velocity
    wanted = [0.1 * CONFIG.control_dt_s / m for m in mass]
    assert velocity[:, 0].tolist() == pytest.approx(wanted, rel=1e-2)
    assert velocity[0, 2].item() == pytest.approx(velocity[1, 2].item(), rel=1e-3), "both fall"


def test_without_friction_a_push_lets_the_object_slide(lab):
    engine = rest(boxes(lab, friction_scale=0.0), 10)
    begin = engine.object_position.clone()
    weight_n = GRAVITY * engine.object_mass[0].item()
    moved = push(engine, (0.0, -0.1 * weight_n, 0.0), steps=3).object_position - begin
    assert abs(moved[0, 1].item()) < 1e-3, "friction 1 holds a tenth of the weight"
    slid = -0.5 * 0.1 * GRAVITY * (3 * CONFIG.control_dt_s) ** 2
    assert moved[1, 1].item() == pytest.approx(slid, rel=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stiffness_scale", 0.3), ("damping_scale", 5.0), ("joint_friction_scale", 20.0)],
)
def test_weaker_or_braked_joints_lag_behind(lab, name, value):
    engine = boxes(lab, **{name: value})
    engine.step(on(engine, (PREGRASP + 0.2).repeat(2, 1)))
    moved = engine.joint_position - on(engine, PREGRASP)
    nominal, changed = moved[:, :16].mean(dim=1).tolist()
    assert changed < nominal - 1e-3 < 0.2
    gains = ROBOT.gains[CONFIG.physics.actuator_gains]
    factor = {"stiffness_scale": 1 / value, "damping_scale": value}.get(name, 1.0)
    lead = factor * gains.damping[0] / gains.stiffness[0]
    assert engine.velocity_lead_s[1, 0].item() == pytest.approx(lead)


def test_a_restored_engine_has_the_parameters_of_the_saved_one(lab):
    saved = boxes(lab, height_m=0.2, object_mass_scale=3.0, stiffness_scale=0.5)
    other = put(lab.engine(count=2, object_of_env=(0, 0)), upright(0.3, 2))
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other.object_mass, saved.object_mass)
    assert torch.equal(other.velocity_lead_s, saved.velocity_lead_s)
    for engine in (saved, other):
        engine.step(on(engine, (PREGRASP + 0.1).repeat(2, 1)))
    assert_same(other, snapshot(other), snapshot(saved))


def test_parameters_go_back_to_nominal_without_a_trace(lab):
    changes = {"object_mass_scale": 3.0, "friction_scale": 0.1, "restitution": 0.5}
    engine = boxes(lab, **changes, stiffness_scale=0.5)
    engine.set_parameters(on(engine, [1]), PhysicsParameters.nominal(1, 23, engine.device))
    put(engine, upright(0.05, 2))
    for _ in range(5):
        engine.step(on(engine, (PREGRASP + 0.1).repeat(2, 1)))
        now = snapshot(engine)
        first = {name: value[:1] for name, value in now.items()}
        assert_same(engine, first, {name: value[1:] for name, value in now.items()})
