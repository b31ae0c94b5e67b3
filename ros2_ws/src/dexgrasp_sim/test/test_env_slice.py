"""What a worker's slice of a rollout holds when an environment breaks or a worker takes over."""

import pytest
import torch

from builders import Play
from dexgrasp_sim.environments import env_specs, make_env
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.telemetry import WorkerTelemetry, read_statuses
from dexgrasp_sim.worker.env_slice import EnvSlice

OBSERVATIONS = {"state": {"shape": [5]}, "half": {"shape": [2], "dtype": "float16"}}
GROUPS = ("half", "state")
SEED = 4
SPECS = env_specs(
    "synthetic", {"observations": OBSERVATIONS, "action_dim": 2, "episode_length": 2}, GROUPS
)
LAYOUT = RunLayout(SPECS, 4, ((0, 2), (2, 5)))


def make_slice(**config):
    """Environments 2 to 4, of the second worker."""
    config = {"observations": OBSERVATIONS, "action_dim": 2, "episode_length": 2, **config}
    env = make_env("synthetic", config, 3, SEED, 1, GROUPS, env_offset=2)
    tensors = {b.name: torch.zeros(b.shape, dtype=b.torch_dtype) for b in LAYOUT.blocks}
    return EnvSlice(env, LAYOUT, tensors, WorkerTelemetry(tensors, 1), 1), tensors


def observes(tensors, slot, steps):
    env_slice, _ = make_slice()
    return all(
        torch.equal(tensors[spec.name][slot, env], expected_observation(spec, SEED, env, steps))
        for spec in env_slice.env.observation_specs
        for env in (2, 3, 4)
    )


def test_a_step_that_is_not_finite_is_no_result_and_begins_an_episode():
    env_slice, tensors = make_slice(nan_every=2, fault_env=3)
    env_slice.reset()
    tensors["actions"].fill_(0.5)
    env_slice.step(0, 0)
    assert tensors["valid"][1].tolist() == [False, False, True, True, True]
    env_slice.step(1, 0)
    env_slice.report()
    assert tensors["valid"][2, 2:].tolist() == [True, False, True]
    assert tensors["reward"][2, 2:].tolist() == [0.5, 0.0, 0.5]
    assert tensors["truncated"][2, 2:].tolist() == [False, True, False]
    assert not tensors["terminated"][2].any()
    assert not tensors["episode"][2].any()
    assert observes(tensors, 2, steps=2)
    # 3's episode has ended in the broken step, which does not count; 4's ends in the next one
    env_slice.step(2, 0)
    env_slice.report()
    assert tensors["valid"][3, 2:].all()
    assert (tensors["terminated"] | tensors["truncated"])[3, 2:].tolist() == [False, False, True]
    status = read_statuses(tensors)[1]
    assert (status.resets_not_finite, status.episodes, status.newest_episode) == (1, 1, 3)


def test_a_step_asks_the_device_once(no_host_reads, monkeypatch):
    """Beside what the environments ask themselves."""
    env_slice, tensors = make_slice()
    env_slice.reset()
    env_slice.env.step = lambda actions, out: None
    asked, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: asked.append(t.shape) or tolist(t))
    for slot in range(2):
        tensors["terminated"][slot + 1, 3] = True
        with no_host_reads:
            env_slice.step(slot, 0)
            env_slice.report()
        assert len(asked) == slot + 1
    assert read_statuses(tensors)[1].episodes == 2


def test_a_physics_failure_is_no_result_though_all_is_finite():
    env_slice, tensors = make_slice()
    env_slice.reset()
    step, diverged = env_slice.env.step, env_slice.env.diverged

    def failing_step(actions, out):
        step(actions, out)
        diverged[2] = True

    def reset_envs(env_ids, out):
        assert env_ids.tolist() == [2]
        diverged[env_ids] = False

    env_slice.env.step, env_slice.env.reset_envs = failing_step, reset_envs
    env_slice.step(0, 0)
    assert tensors["valid"][1, 2:].tolist() == [True, True, False]


def test_an_environment_that_stays_broken_ends_the_worker():
    env_slice, _ = make_slice()
    env_slice.reset()
    env_slice.env._base["half"][1, 0] = torch.inf
    with pytest.raises(FloatingPointError, match=r"\[3\] are not finite, not even after"):
        env_slice.step(0, 0)
    with pytest.raises(FloatingPointError, match="first observations"):
        env_slice.reset()


def test_a_successor_fills_the_slot_with_new_episodes_and_marks_it():
    env_slice, tensors = make_slice()
    env_slice.reset()
    for slot in range(3):
        env_slice.step(slot, 0)
        env_slice.report()
    before = read_statuses(tensors)[1]
    assert (before.episodes, before.newest_episode) == (2, 2)
    successor, _ = make_slice()
    successor = EnvSlice(
        successor.env,
        LAYOUT,
        tensors,
        WorkerTelemetry(tensors, 1),
        1,
    )
    tensors["reward"][4] = tensors["state"][4] = torch.nan  # what a lost worker may leave
    tensors["terminated"][4] = tensors["valid"][4] = True
    successor.take_over(slot=4, steps=8)
    assert observes(tensors, 4, steps=0)
    assert tensors["valid"][4].tolist() == [True, True, False, False, False]
    assert tensors["truncated"][4, 2:].all() and not tensors["terminated"][4, 2:].any()
    assert not tensors["reward"][4, 2:].any() and not tensors["episode"][4, 2:].any()
    assert tensors["sequence"][4].tolist() == [0, 8]
    successor.step(0, 0)
    successor.report()
    status = read_statuses(tensors)[1]
    assert (status.steps, status.episodes, status.newest_episode) == (
        9,
        2,
        before.newest_episode + 1,
    )


LATE = {
    "control_hz": 30.0,
    "stagger_starts": False,
    "latency": {
        "joint_age_steps": {"initial": [1, 2]},
        "image_age_steps": {"initial": [1, 2]},
        "action_delay_s": {"initial": [0.01, 0.02]},
    },
    "image": {"depth_noise": {"depth_sigma_per_m": 0.004}},
    "camera": {"width": 16, "height": 12},
}


class Grasp(Play):
    """Four environments whose sensors are late and noisy."""

    def __init__(self):
        super().__init__(4, LATE, ("proprio", "state", "depth"), seed=2)

    def steps(self, count):
        generator = torch.Generator().manual_seed(count)
        for _ in range(count):
            self.step(2 * torch.rand(4, self.env.action_dim, generator=generator) - 1)


def test_beginning_an_episode_in_one_environment_leaves_the_others_alone():
    ours, other = Grasp(), Grasp()
    ours.steps(5)
    other.steps(5)
    ours.env.reset_envs(torch.tensor([1, 2]), ours.out)
    others = [0, 3]
    for count in (0, 4):
        ours.steps(count)
        other.steps(count)
        for name, tensor in ours.out.items():
            assert torch.equal(tensor[others], other.out[name][others]), name
        assert not torch.equal(ours.out["proprio"][1], other.out["proprio"][1])
    assert ours.env.episode_count.tolist() == [1, 2, 2, 1]
    assert ours.env.step_count.tolist() == [9, 4, 4, 9]


def test_episodes_are_counted_from_where_a_run_has_come_to():
    ours, other = Grasp(), Grasp()
    for _ in range(3):
        other.env.reset_envs(torch.arange(4), other.out)
    first = other.env.engine.object_position.clone()
    assert not torch.equal(first, ours.env.engine.object_position)
    ours.env.reset(ours.out, first_episode=3)
    assert torch.equal(first, ours.env.engine.object_position)
    assert ours.env.episode_count.tolist() == other.env.episode_count.tolist() == [4] * 4
    for name in ("proprio", "state", "depth"):
        assert torch.equal(ours.out[name], other.out[name]), name


def test_a_world_that_diverges_is_counted_and_goes_on():
    config, groups = {"control_hz": 30.0}, ("proprio", "state")
    env = Play(3, config, groups, seed=2).env
    layout = RunLayout(env_specs("grasp", config, groups), 4, ((0, 3),))
    tensors = {b.name: torch.zeros(b.shape, dtype=b.torch_dtype) for b in layout.blocks}
    env_slice = EnvSlice(env, layout, tensors, WorkerTelemetry(tensors, 0), 0)
    env_slice.reset()
    env_slice.step(0, 0)
    env.engine._qvel[1] = torch.nan
    env_slice.step(1, 0)
    env_slice.step(2, 0)
    assert tensors["valid"][1:4].tolist() == [[True] * 3, [True, False, True], [True] * 3]
    assert all(torch.isfinite(tensors[name]).all() for name in ("proprio", "state", "reward"))
    assert env.episode_count.tolist() == [1, 2, 1]
    assert read_statuses(tensors)[0].resets_not_finite == 1
