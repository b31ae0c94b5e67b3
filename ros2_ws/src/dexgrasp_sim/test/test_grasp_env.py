import math

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.observations import GROUPS
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy
from dexgrasp_sim.vec_env import EPISODE_FIELDS, RESULT_SPECS

FAST = {"physics": {"integrator": "discrete", "timestep_s": 1 / 60}, "stagger_starts": False}
SHORT = {**FAST, "episode_s": 0.8, "success": {"hold_s": 0.2}}  # 12 steps, of which 3 held
RESULTS = tuple(spec.name for spec in RESULT_SPECS)


class Play:
    """An environment with its tensors."""

    def __init__(self, num_envs, task=FAST, groups=GROUPS, seed=3, threads=1, env_offset=0):
        config = parse_config(GraspConfig, task)
        self.env = GraspEnv(config, num_envs, seed, threads, groups, env_offset)
        self.out = {
            spec.name: torch.full((num_envs, *spec.shape), 1).to(spec.torch_dtype)
            for spec in (*self.env.observation_specs, *RESULT_SPECS)
        }
        self.env.reset(self.out)

    def step(self, actions):
        self.env.step(actions, self.out)
        return self.snapshot()

    def rest(self):
        return self.step(torch.zeros(self.env.num_envs, self.env.action_dim))

    def snapshot(self):
        return {name: value.clone() for name, value in self.out.items()}

    def place(self, rows, position):
        """Puts objects somewhere, at rest and upright, and the robot back to its start."""
        count = len(rows)
        pose = torch.tensor([[*position, 1.0, 0.0, 0.0, 0.0]]).expand(count, -1)
        start = self.env.decoder.start_position.expand(count, -1)
        self.env.engine.reset(torch.tensor(rows), start, pose)


def random_actions(steps, num_envs, seed=0):
    """[steps, N, 7]: each held for four steps, so that the hand gets somewhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.rand(-(-steps // 4), num_envs, 7, generator=generator) - 1.5
    return coarse.repeat_interleave(4, dim=0)[:steps]


def assert_equal(one, other, names=None):
    for name in names or one:
        assert torch.equal(one[name], other[name]), name


def columns(env, group, term):
    (spec,) = (spec for spec in env.observation_specs if spec.name == group)
    offset = 0
    for candidate in spec.terms:
        if candidate.name == term:
            return slice(offset, offset + candidate.size)
        offset += candidate.size
    raise AssertionError(f"{group} has no term {term}")


def episode(out, field):
    return out["episode"][:, EPISODE_FIELDS.index(field)]


def test_tensors_have_the_shapes_and_types_of_their_specs():
    play = Play(3)
    assert tuple(spec.name for spec in play.env.observation_specs) == GROUPS
    for out in (play.snapshot(), play.rest()):
        for spec in (*play.env.observation_specs, *RESULT_SPECS):
            assert out[spec.name].shape == (3, *spec.shape), spec.name
            assert out[spec.name].dtype == spec.torch_dtype, spec.name
            assert torch.isfinite(out[spec.name].float()).all(), spec.name
    assert play.env.action_dim == 7 and play.env.control_dt_s == pytest.approx(1 / 15)


def test_reset_zeroes_the_results_and_repeats_itself():
    play = Play(3)
    first = play.snapshot()
    for name in RESULTS:
        assert not first[name].any(), name
    for action in random_actions(5, 3):
        play.step(action)
    play.env.reset(play.out)
    assert_equal(play.snapshot(), first)


def test_only_the_groups_asked_for_are_written():
    play = Play(2, groups=("object", "proprio"))
    assert set(play.out) == {"object", "proprio", *RESULTS}
    with pytest.raises(ConfigError, match=r"'sound' is not one of proprio, .*stereo_rgb"):
        Play(1, groups=("sound",))


def test_state_terms_are_the_physics_seen_from_the_spawn_centre():
    play = Play(3)
    for action in random_actions(6, 3):
        play.step(action)
    env, engine, out = play.env, play.env.engine, play.out

    def term(name, group="state"):
        return out[group][:, columns(env, group, name)]

    table = env.config.table.top_m
    from_center = engine.object_position - torch.tensor([-0.55, 0.10, table])
    assert torch.allclose(term("object_position"), from_center)
    tips = term("fingertip_from_object").view(3, 4, 3) + engine.object_position[:, None]
    assert torch.allclose(tips, engine.fingertip_position, atol=1e-6)
    center = term("grasp_center_from_object") + engine.object_position
    assert torch.allclose(center, engine.grasp_center_position, atol=1e-6)
    assert torch.equal(term("object_x_axis"), engine.object_rotation[:, :, 0])
    assert torch.equal(term("object_z_axis"), engine.object_rotation[:, :, 2])
    assert torch.equal(term("object_shape"), torch.eye(3))
    extents = [[0.06, 0.06, 0.10], [0.06, 0.06, 0.10], [0.07, 0.07, 0.07]]
    assert torch.allclose(term("object_extents"), torch.tensor(extents))
    assert torch.equal(term("object_position", "object"), term("object_position"))
    assert torch.equal(term("object_z_axis", "object"), term("object_z_axis"))
    velocity = torch.cat(
        (term("object_linear_velocity", "critic"), term("object_angular_velocity", "critic")), 1
    )
    assert torch.equal(velocity, engine.object_velocity)
    assert torch.equal(term("joint_velocity", "critic"), engine.joint_velocity)


def test_objects_go_round_and_a_split_keeps_the_global_order():
    assert Play(5, groups=()).env.object_index.tolist() == [0, 1, 2, 0, 1]
    assert Play(2, groups=(), env_offset=4).env.object_index.tolist() == [1, 2]


def test_objects_start_upright_inside_the_spawn_rectangle():
    play = Play(60, groups=("state",))
    position = play.env.engine.object_position
    low, high = position[:, :2].amin(0), position[:, :2].amax(0)
    assert (low >= torch.tensor([-0.65, 0.0])).all() and (low < torch.tensor([-0.62, 0.03])).all()
    assert (high <= torch.tensor([-0.45, 0.2])).all() and (
        high > torch.tensor([-0.48, 0.17])
    ).all()
    assert torch.allclose(play.env.engine.object_rotation[:, 2, 2], torch.ones(60))
    yaw = torch.atan2(*play.env.engine.object_rotation[:, [1, 0], 0].T)
    assert yaw.amin() < -2.5 and yaw.amax() > 2.5
    half = torch.tensor([0.05, 0.05, 0.035]).repeat(20)
    assert torch.allclose(position[:, 2] - half - play.env.config.table.top_m, torch.tensor(0.002))


def test_the_episode_is_truncated_at_its_time_out_and_nothing_of_it_stays():
    """Two batches that acted differently observe the same new episode, images included."""
    busy, idle = Play(3, SHORT), Play(3, SHORT)
    first = busy.snapshot()
    for step, action in enumerate(random_actions(12, 3)):
        one, other = busy.step(action), idle.rest()
        ended = step == 11
        assert one["truncated"].tolist() == other["truncated"].tolist() == [ended] * 3
        assert not one["terminated"].any()
        if not ended:
            assert not torch.equal(one["proprio"], other["proprio"])
    assert_equal(one, other, GROUPS)
    for group in ("state", "object", "depth", "stereo_rgb"):
        assert not torch.equal(one[group], first[group]), "the object lies elsewhere now"
    assert not one["critic"].any(), "everything is at rest"
    fraction = columns(busy.env, "proprio", "episode_time_fraction")
    assert not one["proprio"][:, fraction].any()
    assert not one["proprio"][:, columns(busy.env, "proprio", "last_action")].any()
    assert episode(one, "length").tolist() == [12.0] * 3
    assert episode(one, "object").tolist() == [0.0, 1.0, 2.0]
    action = random_actions(1, 3)[0]
    assert_equal(busy.step(action), idle.step(action), (*GROUPS, "reward", "truncated"))


def test_the_time_fraction_runs_from_zero_to_one():
    play = Play(1, SHORT)
    column = columns(play.env, "proprio", "episode_time_fraction")
    seen = [play.out["proprio"][0, column].item()]
    seen += [play.rest()["proprio"][0, column].item() for _ in range(12)]
    assert seen == pytest.approx([step / 12 for step in range(12)] + [0.0])


def test_staggered_episodes_end_at_different_times_but_only_the_first():
    play = Play(8, {**SHORT, "stagger_starts": True}, groups=("state",))
    ends = torch.stack([play.rest()["truncated"] for _ in range(24)])
    assert (ends[:12].sum(0) == 1).all() and (ends[12:].sum(0) == 1).all()
    first, second = ends[:12].int().argmax(0), ends[12:].int().argmax(0)
    assert torch.equal(first, second), "later episodes have their full length"
    assert len(set(first.tolist())) > 3


@pytest.mark.parametrize(
    "position",
    [
        (-0.55 + 0.31, 0.10, 0.30),
        (-0.55, 0.10 - 0.31, 0.30),
        (-0.55, 0.41, 0.30),
        (-0.5, 0.1, 0.1),
    ],
)
def test_an_object_that_leaves_terminates_its_episode_only(position):
    play = Play(3, SHORT)
    play.rest()
    play.place([1], position)
    out = play.rest()
    assert out["terminated"].tolist() == [False, True, False]
    assert not out["truncated"].any()
    assert episode(out, "length")[1] == 2 and episode(out, "success")[1] == 0
    assert torch.isfinite(out["reward"]).all()
    offset = play.env.engine.object_position - play.env.origin
    assert (offset[:, :2].abs() <= 0.1).all(), "the new episode's object is in its place"
    assert play.env.step_count.tolist() == [2, 0, 2]


def test_leaving_in_the_last_step_is_a_termination():
    play = Play(2, SHORT)
    for _ in range(11):
        play.rest()
    play.place([0], (-0.2, 0.10, 0.30))
    out = play.rest()
    assert out["terminated"].tolist() == [True, False]
    assert out["truncated"].tolist() == [False, True]


def run_heights(heights, reach_m):
    """One episode of the box at given heights (m above its start) after each step."""
    task = {**SHORT, "success": {"hold_s": 0.2, "reach_m": reach_m}}
    play = Play(1, task, groups=())
    substeps, dt_s = play.env.config.physics_steps, play.env.config.physics.timestep_s
    fall = 9.81 * dt_s**2 * substeps * (substeps + 1) / 2
    total = 0.0
    for height in heights:
        # away from the hand, which would touch it
        z = play.env.config.table.top_m + 0.05 + max(height + fall, 0.0005)
        play.place([0], (-0.55 - 0.18, 0.10 + 0.18, z))
        out = play.rest()
        total += out["reward"].item()
    assert out["truncated"].item()
    assert episode(out, "return").item() == pytest.approx(total, rel=1e-5)
    return {field: episode(out, field).item() for field in EPISODE_FIELDS}


@pytest.mark.parametrize(
    ("heights", "reach_m", "success", "dropped"),
    [
        ([0.0] * 12, 1.0, 0, 0),
        ([0.12] * 12, 1.0, 1, 0),
        ([0.12] * 12, 0.1, 0, 0),  # up, but not in the hand
        ([0.0] * 9 + [0.12] * 3, 1.0, 1, 0),  # held just long enough
        ([0.0] * 10 + [0.12] * 2, 1.0, 0, 0),  # not long enough
        ([0.12] * 9 + [0.09, 0.12, 0.12], 1.0, 0, 0),  # sagged in between
        ([0.12] * 10 + [0.0, 0.0], 1.0, 0, 1),  # dropped
        ([0.12] * 11 + [0.06], 1.0, 0, 0),  # lowered by less than half
        ([0.09] * 10 + [0.0, 0.0], 1.0, 0, 0),  # never up, so not dropped
    ],
)
def test_success_and_drops(heights, reach_m, success, dropped):
    result = run_heights(heights, reach_m)
    assert (result["success"], result["dropped"]) == (success, dropped)
    assert result["max_lift_m"] == pytest.approx(max(heights), abs=2e-3)
    assert result["length"] == 12


def test_the_reward_is_that_of_the_observed_state():
    """Worked out again from the observations of a grasp, with the formulas of rewards.py."""
    play = Play(3)
    policy = ScriptedPolicy(play.env)
    env, goal_height = play.env, play.env.config.goal_height_m
    half = torch.tensor([0.05, 0.05, 0.035])
    lifted = 0.0
    for _ in range(60):
        out = play.step(policy.act())
        state = out["state"]
        position = state[:, columns(env, "state", "object_position")]
        tips = state[:, columns(env, "state", "fingertip_from_object")].view(3, 4, 3)
        center = state[:, columns(env, "state", "grasp_center_from_object")].view(3, 1, 3)
        farthest = torch.cat((tips, center), 1).norm(dim=2).amax(1)
        height = position[:, 2] - half
        lifted = max(lifted, height.max().item())
        goal = torch.stack((torch.zeros(3), torch.zeros(3), half + goal_height), 1)
        share = (height / goal_height).clamp(0, 1)
        wanted = 0.1 * (
            torch.exp(-10 * farthest)
            + 5 * share * torch.exp(-10 * (farthest - 0.05).clamp(min=0))
            + 3 * torch.exp(-15 * (position - goal).norm(dim=1))
        )
        assert torch.allclose(out["reward"], wanted, atol=1e-5)
    assert lifted > 0.1


def test_a_grasp_succeeds_and_opening_the_hand_drops():
    """Environments 6 to 11 open the hand while the object is up."""
    play = Play(12, groups=("state",))
    policy, env = ScriptedPolicy(play.env), play.env
    opens = torch.arange(12) >= 6
    total = torch.zeros(12)
    for step in range(env.config.episode_steps):
        actions = policy.act()
        if step == 51:  # 3.4 s
            up = env.engine.object_position[:, 2] - env.start_height > 0.12
        if step >= 51:
            actions[opens, 4:6] = -1.0
        out = play.step(actions)
        total += out["reward"]
    assert out["truncated"].all()
    assert up[opens].sum() >= 4 and up[~opens].sum() >= 4
    assert torch.equal(episode(out, "success") > 0, up & ~opens)
    assert torch.equal(episode(out, "dropped") > 0, up & opens)
    assert (episode(out, "max_lift_m")[up] > 0.12).all()
    assert torch.allclose(episode(out, "return"), total, rtol=1e-5)
    assert total[up & ~opens].min() > total[up & opens].max()


def test_a_seed_gives_the_same_run_on_any_number_of_threads():
    plays = [Play(5, threads=threads) for threads in (1, 2)]
    assert_equal(*(play.snapshot() for play in plays))
    torch_threads = torch.get_num_threads()
    try:
        for action in random_actions(20, 5):
            results = []
            for threads, play in enumerate(plays, start=1):
                torch.set_num_threads(threads)
                results.append(play.step(action))
            assert_equal(results[0], results[1])
    finally:
        torch.set_num_threads(torch_threads)


def test_seeds_differ_and_so_do_environments_and_episodes():
    starts = [
        Play(4, SHORT, groups=("state",), seed=seed).env.engine.object_position.clone()
        for seed in (0, 1)
    ]
    play = Play(4, SHORT, groups=("state",), seed=0)
    for _ in range(12):
        play.rest()
    places = torch.cat((*starts, play.env.engine.object_position))[:, :2]
    assert len({tuple(place) for place in places.tolist()}) == 12


def test_splitting_a_run_over_workers_changes_nothing():
    """Two times four environments are eight, bit for bit, over the ends of episodes."""
    task = {**SHORT, "stagger_starts": True}
    whole = Play(8, task)
    halves = [Play(4, task, env_offset=offset) for offset in (0, 4)]
    for action in random_actions(15, 8):
        together = whole.step(action)
        parts = [half.step(action[4 * i : 4 * i + 4]) for i, half in enumerate(halves)]
        for name, value in together.items():
            assert torch.equal(value, torch.cat([part[name] for part in parts])), name


def test_a_restored_environment_continues_bit_exactly():
    """Twenty steps over the end of an episode, into a used environment and into a new one."""
    play = Play(4, {**SHORT, "stagger_starts": True})
    actions = random_actions(30, 4)
    for action in actions[:10]:
        play.step(action)
    before, state = play.snapshot(), play.env.state_dict()
    kept = {name: value.clone() for name, value in state.items()}
    after = [play.step(action) for action in actions[10:]]
    assert any(out["truncated"].any() for out in after)
    for other in (play, Play(4, {**SHORT, "stagger_starts": True})):
        other.env.load_state_dict(state, other.out)
        assert_equal(other.snapshot(), before, GROUPS)
        for action, wanted in zip(actions[10:], after, strict=True):
            assert_equal(other.step(action), wanted, (*GROUPS, "reward", "terminated"))
            ended = wanted["truncated"] | wanted["terminated"]
            assert torch.equal(other.out["episode"][ended], wanted["episode"][ended])
    assert_equal(state, kept)


def test_a_broken_policy_harms_neither_its_environment_nor_the_others():
    plays = [Play(3) for _ in range(2)]
    bad = torch.tensor([math.nan, math.inf, -math.inf, math.nan, 1e30, -1e30, math.nan])
    good = torch.tensor([0.0, 1.0, -1.0, 0.0, 1.0, -1.0, 0.0])
    for action in random_actions(12, 3):
        action[1] = bad
        broken = plays[0].step(action)
        action[1] = good
        assert_equal(broken, plays[1].step(action))
    for name, value in broken.items():
        assert torch.isfinite(value.float()).all(), name


def test_the_caller_keeps_its_actions():
    play = Play(2)
    actions = torch.full((2, 7), 5.0)
    play.step(actions)
    assert (actions == 5.0).all()
    column = columns(play.env, "proprio", "last_action")
    assert (play.out["proprio"][:, column] == 1.0).all()


def test_depth_is_in_range_and_sees_the_object():
    play = Play(3)
    depth = play.snapshot()["depth"]
    camera = play.env.config.camera
    valid = depth[depth > 0]
    assert valid.min() >= 1000 * camera.near_m and valid.max() <= 1000 * camera.far_m
    assert len(valid) > depth.numel() / 2
    play.place([1], (-0.45, 0.19, 0.30))
    play.env.write_observations(play.out)
    changed = (play.out["depth"] != depth).flatten(1).sum(1)
    assert changed[[0, 2]].tolist() == [0, 0] and changed[1] > 5


def test_an_object_left_alone_stays_within_a_millimetre():
    play = Play(6, groups=("state",))
    for _ in range(8):
        play.rest()
    engine = play.env.engine
    position, rotation = engine.object_position.clone(), engine.object_rotation.clone()
    for _ in range(play.env.config.episode_steps - 10):
        play.rest()
        assert (engine.object_position - position).abs().max() < 1e-3
        assert engine.object_velocity[:, :3].abs().max() < 0.01
    # a sphere may turn about the vertical, a box or a cylinder may not tilt
    tilt = (engine.object_rotation - rotation)[:, :, 2].abs().amax(1)
    assert tilt.max() < 5e-3


def deepest_contacts(env):
    """[N] m, how deep the deepest contact of each environment is."""
    depths = np.zeros(env.num_envs)
    for index in range(env.num_envs):
        model, data = env.engine._batch.get_model(index), env.engine._batch.get_data(index)
        mujoco.mj_fwdPosition(model, data)
        depths[index] = -min((contact.dist for contact in data.contact), default=0.0)
    return depths


@pytest.mark.parametrize("physics", [FAST["physics"], {}], ids=["laptop", "reference"])
def test_a_grasp_does_not_sink_into_the_object(physics):
    play = Play(6, {**FAST, "physics": physics}, groups=(), seed=0)
    policy = ScriptedPolicy(play.env)
    steps = play.env.config.episode_steps
    depths = []
    for _ in range(steps - 1):
        play.step(policy.act())
        depths.append(deepest_contacts(play.env))
    depths_m = np.stack(depths)
    assert depths_m.max() > 0.0005, "there was contact"
    assert (depths_m > 0.006).mean() < 0.01
    assert depths_m[-20:].max() < 0.006, "while the object is held"
    assert depths_m.max() < (0.025 if physics else 0.008), "when the fingers strike"


def test_telemetry_is_one_environment_and_a_copy():
    play = Play(3)
    for action in random_actions(4, 3):
        play.step(action)
    engine, seen = play.env.engine, play.env.telemetry(1)
    assert {name: tuple(value.shape) for name, value in seen.items()} == {
        "joint_position": (23,),
        "joint_velocity": (23,),
        "object_pose": (7,),
        "goal": (3,),
    }
    assert torch.equal(seen["object_pose"][:3], engine.object_position[1])
    assert torch.equal(seen["object_pose"][3:], engine.object_quaternion[1])
    # 0.2 m over where the cylinder's centre stood: table 0.25 m, half its height 0.05 m
    assert seen["goal"].tolist() == pytest.approx([-0.55, 0.10, 0.5], abs=1e-6)
    kept = {name: value.clone() for name, value in seen.items()}
    play.step(random_actions(1, 3, seed=1)[0])
    assert_equal(seen, kept)
    assert play.env.timings()["physics"] > 0.0
    play.env.close()
    play.env.close()
