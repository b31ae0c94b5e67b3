import math

import pytest
import torch

from builders import SHORT, Play
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, RESULT_SPECS
from dexgrasp_sim.tasks.grasp.observations import GROUPS, PHASES
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy

RESULTS = tuple(spec.name for spec in RESULT_SPECS)


def place(play, rows, position):
    """Puts objects somewhere, at rest and upright, and the robot back to its start."""
    count = len(rows)
    pose = torch.tensor([[*position, 1.0, 0.0, 0.0, 0.0]]).expand(count, -1)
    start = play.env.decoder.start_position.expand(count, -1)
    play.env.engine.reset(torch.tensor(rows), start, pose)


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
    index = [candidate.name for candidate in spec.terms].index(term)
    offset = sum(before.size for before in spec.terms[:index])
    return slice(offset, offset + spec.terms[index].size)


def episode(out, field):
    return out["episode"][:, EPISODE_FIELDS.index(field)]


def test_tensors_have_the_shapes_and_types_of_their_specs():
    play = Play(3)
    assert tuple(spec.name for spec in play.env.observation_specs) == tuple(GROUPS)
    for out in (play.snapshot(), play.step()):
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
    shape = term("object_shape")
    assert torch.equal(shape[:, :3], torch.eye(3)) and not shape[:, 3:].any()
    extents = [[0.06, 0.06, 0.10], [0.06, 0.06, 0.10], [0.07, 0.07, 0.07]]
    assert torch.allclose(term("object_extents"), torch.tensor(extents))
    assert torch.equal(term("object_position", "object"), term("object_position"))
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
    assert yaw.amin() < -2.4 and yaw.amax() > 2.4
    half = torch.tensor([0.05, 0.05, 0.035]).repeat(20)
    assert torch.allclose(position[:, 2] - half - play.env.config.table.top_m, torch.tensor(0.002))


def test_the_episode_is_truncated_at_its_time_out_and_nothing_of_it_stays():
    """Two batches that acted differently observe the same new episode, images included."""
    busy, idle = Play(3, SHORT), Play(3, SHORT)
    first = busy.snapshot()
    for step, action in enumerate(random_actions(12, 3)):
        one, other = busy.step(action), idle.step()
        ended = step == 11
        assert one["truncated"].tolist() == other["truncated"].tolist() == [ended] * 3
        assert not one["terminated"].any()
        if not ended:
            assert not torch.equal(one["proprio"], other["proprio"])
    assert_equal(one, other, GROUPS)
    for group in ("state", "object", "depth", "stereo_rgb"):
        assert not torch.equal(one[group], first[group]), "the object lies elsewhere now"
    assert not one["critic"].any(), "everything is at rest"
    for term in ("episode_time_fraction", "last_action"):
        assert not one["proprio"][:, columns(busy.env, "proprio", term)].any()
    assert episode(one, "object").tolist() == [0.0, 1.0, 2.0]
    action = random_actions(1, 3)[0]
    assert_equal(busy.step(action), idle.step(action), (*GROUPS, "reward", "truncated"))


def test_the_time_fraction_runs_from_zero_to_one():
    play = Play(1, SHORT)
    column = columns(play.env, "proprio", "episode_time_fraction")
    seen = [play.out["proprio"][0, column].item()]
    seen += [play.step()["proprio"][0, column].item() for _ in range(12)]
    assert seen == pytest.approx([step / 12 for step in range(12)] + [0.0])


def test_staggered_episodes_end_at_different_times_but_only_the_first():
    play = Play(8, {**SHORT, "stagger_starts": True}, groups=("state",))
    ends = torch.stack([play.step()["truncated"] for _ in range(24)])
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
    play.step()
    place(play, [1], position)
    out = play.step()
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
        play.step()
    place(play, [0], (-0.2, 0.10, 0.30))
    out = play.step()
    assert out["terminated"].tolist() == [True, False]
    assert out["truncated"].tolist() == [False, True]


class Hover(Play):
    """The box, held by nothing at a height above its start after every step."""

    def __init__(self, reach_m=1.0):
        super().__init__(1, {**SHORT, "success": {"hold_s": 0.2, "reach_m": reach_m}}, groups=())
        physics, substeps = self.env.config.physics, self.env.config.physics_steps
        self.fall_m = 9.81 * physics.timestep_s**2 * substeps * (substeps + 1) / 2

    def at(self, height):
        # away from the hand, which would touch it
        z = self.env.config.table.top_m + 0.05 + max(height + self.fall_m, 0.0005)
        place(self, [0], (-0.55 - 0.18, 0.10 + 0.18, z))
        return self.step()

    def episode(self, heights):
        """The figures of one episode."""
        total = sum(self.at(height)["reward"].item() for height in heights)
        assert self.out["truncated"].item()
        figures = dict(zip(EPISODE_FIELDS, self.out["episode"][0].tolist(), strict=True))
        assert figures["return"] == pytest.approx(total, rel=1e-5)
        return figures


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
    result = Hover(reach_m).episode(heights)
    assert (result["success"], result["dropped"]) == (success, dropped)
    assert result["max_lift_m"] == pytest.approx(max(heights), abs=2e-3)
    assert result["length"] == 12


def test_an_episode_inherits_no_figures_from_the_one_before():
    hover = Hover()
    assert hover.episode([0.12] * 12)["success"] == 1
    result = hover.episode([0.0] * 12)
    assert (result["success"], result["dropped"], result["length"]) == (0, 0, 12)
    assert result["max_lift_m"] == pytest.approx(0.0, abs=2e-3)


def test_a_restored_environment_remembers_what_was_held():
    hover, other = Hover(), Hover()
    for _ in range(11):
        hover.at(0.12)
    other.env.load_state_dict(hover.env.state_dict(), other.out)
    for play in (hover, other):
        play.at(0.12)
        assert episode(play.out, "success").item() == 1
    assert torch.equal(hover.out["episode"], other.out["episode"])


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
        play.step()
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
    place(play, [1], (-0.45, 0.19, 0.30))
    play.env.write_observations(play.out)
    changed = (play.out["depth"] != depth).flatten(1).sum(1)
    assert changed[[0, 2]].tolist() == [0, 0] and changed[1] > 5


def test_telemetry_is_one_environment_and_a_copy():
    play = Play(3)
    for action in random_actions(4, 3):
        play.step(action)
    engine, seen = play.env.engine, play.env.telemetry(1)
    assert {name: tuple(value.shape) for name, value in seen.items()} == {
        "joint_position": (23,),
        "joint_velocity": (23,),
        "joint_target": (23,),
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
    play.env.close()
    play.env.close()


def test_a_grasp_has_its_phases_in_order():
    """Rows are one-hot; the scripted hand reaches, closes around the object, and lifts it."""
    play = Play(3, groups=("phase",))
    policy = ScriptedPolicy(play.env)
    seen = [play.out["phase"].clone()]
    for _ in range(play.env.config.episode_steps - 1):
        seen.append(play.step(policy.act())["phase"])
    phases = torch.stack(seen)  # [T, 3, 3]
    assert torch.equal(phases.sum(-1), torch.ones(phases.shape[:2]))
    numbers = phases.argmax(-1)  # [T, 3]
    assert (numbers[0] == PHASES.index("reach")).all()
    assert (numbers[-1] == PHASES.index("lift")).all()
    first = [(numbers == PHASES.index(name)).int().argmax(0) for name in PHASES]
    assert (first[0] < first[1]).all() and (first[1] < first[2]).all()
