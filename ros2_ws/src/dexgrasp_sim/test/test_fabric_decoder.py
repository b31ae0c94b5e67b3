import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.control.fabric.config import FabricConfig, MotionConfig
from dexgrasp_sim.control.fabric.decoder import FabricDecoder
from dexgrasp_sim.control.fabric.obstacles import SURROUNDINGS
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.robot.rotation import matrix_to_zyx_euler, rotation_vector, zyx_euler_to_matrix
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
PALM = ROBOT.palm
RESET_POSTURE = ROBOT.postures["reset"]

LOWER, UPPER, SPEED = (
    torch.from_numpy(bound) for bound in (ROBOT.lower, ROBOT.upper, ROBOT.velocity_limit)
)
ACCELERATION = torch.tensor([7.5, 7.5, 10, 10, 10, 20, 20] + [22.5] * 16).double()
JERK = torch.tensor([3750.0, 3750, 5000, 5000, 5000, 10000, 10000] + [2250] * 16).double()
TABLE = GraspConfig().table_obstacle
BODY_SPHERES = ROBOT.fabric.body.spheres
PREGRASP = ARM_PREGRASP + HAND_REST
SPHERES = Kinematics(ROBOT, [sphere.frame for sphere in BODY_SPHERES], dtype=torch.float64)
PALM_KINEMATICS = Kinematics(ROBOT, [PALM])
DT_S = 1 / 60

pytestmark = pytest.mark.usefixtures("one_thread")


def make(num_envs=1, control_dt_s=DT_S, **config):
    return FabricDecoder(FabricConfig(**config), ROBOT, num_envs, control_dt_s, TABLE)


def towards(decoder, goal):
    """The action that sets a goal [N, 11]."""
    low, high = (torch.tensor(bound) for bound in decoder.config.ranges(ROBOT))
    return (goal - 0.5 * (low + high)) / (0.5 * (high - low))


def palm_pose(joints):
    frames = PALM_KINEMATICS.forward(joints)
    return frames.position[:, 0], frames.rotation[:, 0]


def least_gap(joints):
    """Least gap in m of any body sphere to any obstacle but the one it is mounted above."""
    frames = SPHERES.forward(joints.double())
    offsets = torch.tensor([sphere.offset_m for sphere in BODY_SPHERES]).double()
    centers = (frames.rotation @ offsets[:, :, None]).squeeze(-1) + frames.position
    radii = torch.tensor([sphere.radius_m for sphere in BODY_SPHERES]).double()
    gaps = []
    for box in (TABLE, *SURROUNDINGS):
        offset = (centers - torch.tensor(box.center_m)).abs() - 0.5 * torch.tensor(box.size_m)
        gaps.append(offset.clamp_min(0.0).norm(dim=-1) - radii)
    return torch.stack(gaps).min().item()


def check_motion(path, step_s):
    """Backward differences of targets [T, N, 23]; `MotionLimits` says which.

    A target is off by up to 2e-7 rad in float32, so that differences are off by that over the
    step, its square and its cube.
    """
    path = path.double()
    velocity = path.diff(dim=0) / step_s
    acceleration = velocity.diff(dim=0) / step_s
    jerk = acceleration.diff(dim=0) / step_s
    rounding = 3e-7
    assert ((path >= LOWER - rounding) & (path <= UPPER + rounding)).all()
    assert (velocity.abs() <= SPEED + 2 * rounding / step_s).all()
    assert (acceleration.abs() <= ACCELERATION + 4 * rounding / step_s**2).all()
    assert (jerk.abs() <= JERK + 8 * rounding / step_s**3).all()


def rollout(decoder, actions):
    """Targets [T, N, 23] at every fabric step, three times the start first."""
    path = [decoder.target.clone()[None]] * 3
    for action in actions:
        decoder.decode(action)
        path.append(decoder.path)
    return torch.cat(path)


def uniform(rng, steps, count):
    return 2 * torch.rand(steps, count, 11, generator=rng) - 1


def bang_bang(rng, steps, count):
    """Extremes, each held for 1 to 40 steps."""
    draws = torch.sign(torch.randn(steps, count, 11, generator=rng))
    held = torch.randint(1, 40, (count,), generator=rng)
    index = torch.arange(steps)[:, None] // held * held
    return draws.gather(0, index[..., None].expand(-1, -1, 11))


def constant_extremes(rng, steps, count):
    return torch.sign(torch.randn(1, count, 11, generator=rng)).expand(steps, -1, -1)


def into_the_table(rng, steps, count):
    actions = bang_bang(rng, steps, count)
    actions[..., 2] = -1.0
    actions[..., :2] *= 0.3
    return actions


def random_walk(rng, steps, count):
    return (0.3 * torch.randn(steps, count, 11, generator=rng)).cumsum(0).clamp(-1, 1)


def broken_numbers(rng, steps, count):
    actions = 10 * torch.randn(steps, count, 11, generator=rng)
    which = torch.rand(steps, count, 11, generator=rng)
    actions[which < 0.2] = torch.nan
    actions[which > 0.8] = torch.inf
    actions[which > 0.9] = -torch.inf
    return actions


SEQUENCES = (
    uniform,
    bang_bang,
    constant_extremes,
    into_the_table,
    random_walk,
    broken_numbers,
)


@pytest.mark.slow
@pytest.mark.parametrize("sequence", SEQUENCES)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=2, deadline=None)
def test_no_action_sequence_breaks_a_limit_or_enters_an_obstacle(sequence, seed):
    """10 240 steps each."""
    actions = sequence(torch.Generator().manual_seed(seed), 160, 64)
    decoder = make(64)
    path = rollout(decoder, actions)
    check_motion(path, DT_S)
    assert least_gap(path.flatten(0, 1)) >= 0.0
    assert torch.isfinite(decoder.goal).all()
    assert torch.equal(decoder.path[-1], decoder.target)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    control_hz=st.sampled_from([10.0, 15.0, 50.0, 120.0]),
    time_scale=st.sampled_from([0.3, 1.0, 2.0]),
    sequence=st.sampled_from([bang_bang, into_the_table, constant_extremes]),
)
@settings(max_examples=8, deadline=None)
def test_limits_hold_in_real_time_at_any_rate_and_pace(seed, control_hz, time_scale, sequence):
    actions = sequence(torch.Generator().manual_seed(seed), 50, 16)
    decoder = make(16, 1 / control_hz, time_scale=time_scale, start_position_rad=PREGRASP)
    path = rollout(decoder, actions)
    check_motion(path, 1 / control_hz / len(decoder.path))
    assert least_gap(path.flatten(0, 1)) >= 0.0


def test_a_fraction_of_the_speed_can_be_allowed():
    decoder = make(8, motion=MotionConfig(velocity_fraction=0.25))
    path = rollout(decoder, constant_extremes(torch.Generator().manual_seed(0), 60, 8))
    speed = path.diff(dim=0).abs().amax((0, 1)) / DT_S / SPEED
    assert speed.max().item() == pytest.approx(0.25, abs=1e-4)


@pytest.mark.slow
def test_reachable_palm_poses_are_reached():
    rng = torch.Generator().manual_seed(1)
    decoder = make(64)
    postures = torch.tensor(PREGRASP).repeat(4096, 1)
    postures[:, :7] += 0.4 * torch.randn(4096, 7, generator=rng)
    inside = ((postures > LOWER + 0.1) & (postures < UPPER - 0.05)).all(1)
    position, rotation = palm_pose(postures)
    away = matrix_to_zyx_euler(rotation) - torch.tensor(ROBOT.fabric.palm_euler_zyx_rad)
    away = torch.remainder(away + math.pi, 2 * math.pi) - math.pi
    euler = away + torch.tensor(ROBOT.fabric.palm_euler_zyx_rad)
    inside &= (away.abs() < decoder.config.palm_angle_rad).all(1) & (position[:, 2] > 0.45)
    inside &= (position[:, 0] < 0.0) & (position[:, 1].abs() < 0.7) & (position[:, 2] < 1.0)
    rows = [i for i in inside.nonzero().flatten().tolist() if least_gap(postures[i][None]) > 0.004]
    rows = rows[:64]
    assert len(rows) == 64
    low, high = (torch.tensor(value) for value in decoder.config.hand_range_rad(ROBOT))
    hand = low + (high - low) * (0.2 + 0.6 * torch.rand(64, 5, generator=rng))
    goal = torch.cat((position[rows], euler[rows], hand), 1)
    for _ in range(180):
        decoder.decode(towards(decoder, goal))
    assert torch.allclose(decoder.goal, goal, atol=1e-5)
    reached, turned = palm_pose(decoder.target)
    missed = (reached - goal[:, :3]).norm(dim=1)
    angle = rotation_vector(turned.mT @ zyx_euler_to_matrix(goal[:, 3:6])).norm(dim=1)
    good = (missed < 0.01) & (angle < math.radians(3))
    assert good.float().mean() > 0.95  # the others meet a joint limit on their way
    components = decoder.target[:, 7:] @ ROBOT.fabric.hand_pca.axes.mT
    assert (components - goal[:, 6:]).abs()[good].max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("start", [RESET_POSTURE, PREGRASP])
def test_the_robot_stands_still_at_its_goal(start):
    decoder = make(start_position_rad=start)
    for _ in range(600):
        decoder.decode(towards(decoder, decoder.goal.clone()))
    assert (decoder.target - decoder.start_position).abs().max() < 1e-3
    assert decoder.velocity.abs().max() < 1e-4


@pytest.mark.slow
def test_pushing_on_the_table_settles_and_slides():
    decoder = make(start_position_rad=PREGRASP)
    goal = decoder.goal.clone()
    goal[:, 2] -= 0.25  # tips 6 cm inside the table
    for _ in range(240):
        decoder.decode(towards(decoder, goal))
    pressed = palm_pose(decoder.target)[0]
    before = decoder.velocity
    decoder.decode(towards(decoder, goal))
    assert (decoder.velocity - before).abs().max() / DT_S < 0.5  # no chatter
    assert 0.0 <= least_gap(decoder.target) < 0.02
    goal[:, 0] += 0.06
    for _ in range(120):
        decoder.decode(towards(decoder, goal))
    moved = palm_pose(decoder.target)[0] - pressed
    assert moved[0, 0].item() == pytest.approx(0.06, abs=0.015)


@pytest.mark.slow
def test_walls_are_not_crossed_and_the_way_back_is_found():
    decoder = make(32)
    actions = constant_extremes(torch.Generator().manual_seed(3), 300, 32)
    home = towards(decoder, decoder.goal.clone())
    for action in actions:
        decoder.decode(action)
    for _ in range(300):
        decoder.decode(home)
    away = (palm_pose(decoder.target)[0] - decoder.goal[:, :3]).norm(dim=1)
    assert away.max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("sequence", [uniform, random_walk])
def test_one_robot_moves_as_it_would_among_many(sequence):
    """Only where the guard is in two minds can rounding, which depends on the batch, decide."""
    actions = 0.5 * sequence(torch.Generator().manual_seed(4), 180, 33)
    many, one = make(33), make(1)
    for action in actions:
        joint = many.decode(action)
        single = one.decode(action[7:8])
        assert (joint[7] - single[0]).abs().max() < 1e-5


def test_half_the_time_scale_is_the_same_motion_at_half_the_speed():
    step_s = DT_S / 2
    full = make(time_scale=1.0, fabric_step_s=step_s)
    half = make(time_scale=0.5, fabric_step_s=step_s)
    action = bang_bang(torch.Generator().manual_seed(5), 1, 1)[0]
    for _ in range(60):
        full.decode(action)
        half.decode(action)
        half.decode(action)
        assert torch.equal(full.target, half.target)
        assert torch.allclose(half.velocity, 0.5 * full.velocity)


def test_steps_of_a_period():
    assert FabricConfig().steps(1 / 60) == 1
    assert FabricConfig().steps(1 / 15) == 4
    assert FabricConfig(time_scale=2.0).steps(1 / 60) == 2
    assert FabricConfig(time_scale=0.5).steps(1 / 60) == 1


def test_actions_span_the_ranges_and_what_is_not_a_number_changes_nothing():
    decoder = make(3)
    start = decoder.goal.clone()
    actions = torch.stack((torch.ones(11), -torch.ones(11), torch.full((11,), torch.nan)))
    decoder.decode(actions)
    pca = ROBOT.fabric.hand_pca
    high = [0.0, 0.7, 1.0, -math.pi / 2, math.pi / 4, 1.25 * math.pi, *pca.upper.tolist()]
    low = [-1.2, -0.7, 0.0, -math.pi, -math.pi / 4, 0.75 * math.pi, *pca.lower.tolist()]
    assert decoder.goal[0].tolist() == pytest.approx(high, abs=1e-6)
    assert decoder.goal[1].tolist() == pytest.approx(low, abs=1e-6)
    assert torch.equal(decoder.goal[2], start[2])
    decoder.decode(torch.full((3, 11), torch.inf))
    assert decoder.goal[2].tolist() == pytest.approx(high, abs=1e-6)


def test_dimensions_that_are_not_commanded_stay_at_the_start():
    decoder = make(2, dimensions=("palm_z", "hand_1"))
    assert decoder.action_dim == 2 and decoder.action_names == ("palm_z", "hand_1")
    start = decoder.goal.clone()
    decoder.decode(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    assert decoder.goal[:, 2].tolist() == pytest.approx([1.0, 0.5])
    others = [i for i in range(11) if i not in (2, 6)]
    assert torch.equal(decoder.goal[:, others], start[:, others])


def test_reset_touches_only_its_environments():
    decoder = make(3)
    for action in uniform(torch.Generator().manual_seed(6), 20, 3):
        decoder.decode(action)
    target, goal = decoder.target.clone(), decoder.goal.clone()
    posture = torch.tensor(PREGRASP)[None]
    decoder.reset(torch.tensor([1]), posture)
    assert torch.allclose(decoder.target[1], posture[0])
    assert torch.count_nonzero(decoder.velocity[1]) == 0
    assert torch.allclose(decoder.goal[1, :3], palm_pose(posture)[0][0], atol=1e-6)
    assert torch.equal(decoder.target[[0, 2]], target[[0, 2]])
    assert torch.equal(decoder.goal[[0, 2]], goal[[0, 2]])
    decoder.reset()
    assert torch.equal(decoder.target, decoder.start_position.repeat(3, 1))
    decoder.reset(torch.tensor([], dtype=torch.int64))


def test_a_state_restored_goes_on_alike():
    actions = random_walk(torch.Generator().manual_seed(7), 40, 2)
    decoder, other = make(2), make(2)
    for action in actions[:20]:
        decoder.decode(action)
    other.load_state_dict(decoder.state_dict())
    for action in actions[20:]:
        assert torch.equal(decoder.decode(action), other.decode(action))


def test_intent_has_its_terms():
    decoder = make(2)
    decoder.decode(torch.zeros(2, 11))
    intent = decoder.intent()
    assert intent.shape == (2, sum(term.size for term in decoder.intent_terms))
    assert torch.allclose(intent[:, :3], torch.tensor([-0.6, 0.0, 0.5]), atol=1e-6)
    rotation = zyx_euler_to_matrix(decoder.goal[:, 3:6])
    assert torch.allclose(intent[:, 3:6], rotation[:, :, 0])
    assert torch.allclose(intent[:, 6:9], rotation[:, :, 1])
    assert torch.equal(intent[:, 14:37], decoder.target)
    assert torch.equal(intent[:, 37:], decoder.velocity)


def test_starts_that_cannot_be_are_refused():
    decoder = make()
    posture = torch.tensor(RESET_POSTURE)[None]
    low = posture.clone()
    low[0, 1] = 1.9  # leans the arm down to the floor
    with pytest.raises(ValueError, match="mm of gap to the obstacle 'floor'"):
        decoder.reset(joint_positions=low)
    assert decoder.gap(low).item() < 0.0 < decoder.gap(posture).item()
    beyond = posture.clone()
    beyond[0, 8] = 2.0
    with pytest.raises(ValueError, match=r"index_joint_1 starts 0\.272 rad beyond"):
        decoder.reset(joint_positions=beyond)
    beyond[0, 8] = torch.nan
    with pytest.raises(ValueError, match="index_joint_1"):
        decoder.reset(joint_positions=beyond)
    beyond[0, 8] = UPPER[8] + 0.03
    decoder.reset(joint_positions=beyond)
    assert decoder.target[0, 8].item() == pytest.approx(UPPER[8].item())


def test_a_config_survives_a_file():
    config = FabricConfig(dimensions=("palm_x",), time_scale=0.5)
    assert parse_config(FabricConfig, to_dict(config)) == config
    assert dataclasses.replace(config, time_scale=1.0) != config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dimensions": []}, "at least one"),
        ({"dimensions": ["palm_x", "palm_x"]}, "each once"),
        ({"dimensions": ["palm_yaw"]}, "'palm_yaw'.* palm_x"),
        ({"palm_min_m": [0.0, 0.0, 0.0]}, "palm_min_m"),
        ({"hand_min_rad": [9.0, 0.0, 0.0, 0.0, 0.0]}, "hand_min_rad"),
        ({"time_scale": 0.0}, "time_scale"),
        ({"posture_rad": [0.0]}, "`posture_rad` has 1 numbers for 23 joints"),
        ({"start_position_rad": [0.0]}, "`start_position_rad` has 1 numbers for 23 joints"),
        ({"motion": {"arm_jerk_rad_s3": [1.0]}}, "`motion.arm_jerk_rad_s3` has 1 numbers for 7"),
        (
            {"motion": {"arm_acceleration_rad_s2": [1.0]}},
            "`motion.arm_acceleration_rad_s2` has 1 numbers for 7 joints",
        ),
    ],
)
def test_a_config_that_does_not_fit_the_robot_is_refused_before_it_runs(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_config(GraspConfig, {"action": {"kind": "fabric", **values}})
    assert "\n" not in str(error.value)
