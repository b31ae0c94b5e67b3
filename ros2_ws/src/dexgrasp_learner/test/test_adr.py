import json

import pytest
import torch

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.run.adr import AdrController
from dexgrasp_learner.run.assembly import build_ppo
from dexgrasp_learner.run.config import AdrConfig
from dexgrasp_learner.run.runner import Runner
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS

SUCCESS, WHOLE = EPISODE_FIELDS.index("success"), EPISODE_FIELDS.index("whole")
SMALL = AdrConfig(
    enabled=True,
    increments=4,
    advance_above=0.6,
    retreat_below=0.3,
    min_episodes=4,
    smoothing_episodes=3,
)
FAST = {"physics": {"timestep_s": 1 / 60, "mujoco": {"integrator": "discrete"}}, "episode_s": 0.8}
TASK = {
    **FAST,
    "success": {"hold_s": 0.2},
    "observation_noise": {
        "joint_position_bias_rad": {"initial": [0.0, 0.0], "final": [0.08, 0.08]},
    },
    "latency": {"image_age_steps": {"initial": [0.0, 0.0], "final": [0.0, 2.0]}},
    "randomization": {
        "object_mass_scale": {"initial": [1.0, 1.0], "final": [0.5, 3.0]},
        "spawn_width_scale": {"initial": [0.0, 0.0], "final": [0.0, 1.0]},
    },
}
TIMEOUT_S = 120.0


def add(controller, *successes):
    rows = torch.zeros(len(successes), len(EPISODE_FIELDS))
    rows[:, SUCCESS] = torch.tensor([float(success) for success in successes])
    rows[:, WHOLE] = 1.0
    return controller.add(rows, torch.ones(len(successes), dtype=torch.bool))


def test_success_is_a_mean_at_first_and_then_smoothed():
    controller = AdrController(SMALL, 0.0)
    assert not add(controller, 1)
    assert controller.success == 1.0
    assert not add(controller, 0)
    assert controller.success == pytest.approx(1 / 2)
    assert not add(controller, 1)
    assert controller.success == pytest.approx(2 / 3)
    # the fourth counts one part in three: 2/3 + (1 - 2/3) / 3 = 7/9 > 0.6
    assert add(controller, 1)
    assert (controller.increment, controller.episodes, controller.success) == (1, 0, 0.0)
    assert controller.difficulty == 0.25


def test_it_retreats_as_far_as_zero_and_stays_in_between():
    controller = AdrController(SMALL, 0.5)
    assert controller.increment == 2
    assert add(controller, 0, 0, 0, 0) and controller.difficulty == 0.25
    # 0, 1/2, 1/3 and 1/3 + (1 - 1/3) / 3 = 5/9: neither above 0.6 nor below 0.3
    assert not add(controller, 0, 1, 0, 1) and controller.difficulty == 0.25
    assert add(controller, 0, 0, 0) and controller.difficulty == 0.0, "5/9 (2/3)^3 = 0.16"
    assert not add(controller, 0, 0, 0, 0) and controller.difficulty == 0.0


def test_it_advances_to_one_and_one_increment_at_a_time():
    controller = AdrController(SMALL, 0.75)
    assert add(controller, *[1] * 50) and controller.difficulty == 1.0
    assert not add(controller, *[1] * 50) and controller.difficulty == 1.0


def test_rows_without_an_episode_do_not_count():
    controller = AdrController(SMALL, 0.0)
    rows = torch.zeros(5, 2, len(EPISODE_FIELDS))
    rows[..., SUCCESS] = rows[..., WHOLE] = 1.0
    ended = torch.zeros(5, 2, dtype=torch.bool)
    ended[:3, 0] = True
    assert not controller.add(rows, ended) and controller.episodes == 3


def test_episodes_that_began_late_do_not_count():
    controller = AdrController(SMALL, 0.5)
    rows = torch.zeros(50, len(EPISODE_FIELDS))
    assert not controller.add(rows, torch.ones(50, dtype=torch.bool))
    assert (controller.increment, controller.episodes) == (2, 0)


def test_a_restored_controller_decides_alike():
    one, other = AdrController(SMALL, 0.25), AdrController(SMALL, 0.0)
    add(one, 1, 0, 1)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert add(one, 1) and add(other, 1)
    assert one.state_dict() == other.state_dict()


def test_disabled_it_keeps_the_difficulty_of_the_task():
    controller = AdrController(AdrConfig(), 0.37)
    assert not add(controller, *[1] * 5000)
    assert controller.difficulty == 0.37 and controller.figures(None) == {}


def test_thresholds_without_a_gap_are_refused():
    with pytest.raises(ConfigError, match=r"`retreat_below` 0.6 is not below `advance_above` 0.6"):
        parse_config(AdrConfig, {"enabled": True, "retreat_below": 0.6})


def rollouts(spec, difficulties):
    """All tensors after each rollout, and the difficulty set before it."""
    pool = make_pool(spec)
    generator = torch.Generator().manual_seed(4)
    shape = (len(difficulties), spec.horizon, spec.simulators.num_envs, 7)
    actions = torch.rand(shape, generator=generator) * 2 - 1
    results = []
    try:
        pool.set_difficulty(difficulties[0])
        pool.start()
        for rollout, difficulty in enumerate(difficulties):
            pool.set_difficulty(difficulty)
            for slot in range(spec.horizon):
                pool.tensors["actions"][slot].copy_(actions[rollout, slot])
                pool.send(slot, policy_version=rollout)
                pool.wait(slot, TIMEOUT_S)
            results.append({name: tensor.clone() for name, tensor in pool.tensors.items()})
            pool.roll_over()
        assert pool.slot_mismatches == 0
    finally:
        pool.close()
    return results


@pytest.mark.slow
def test_all_workers_have_the_same_level_in_the_same_step(tmp_path):
    """One batch, two slices in this thread and two processes, over changes of the level."""
    common = {
        "kind": "grasp",
        "config": TASK,
        "groups": ("proprio", "critic", "depth", "object"),
        "horizon": 6,
        "seed": 2,
        "log_dir": tmp_path,
    }
    difficulties = [0.0, 1.0, 1.0, 0.5, 0.0]
    alone = SimulatorsConfig(num_envs=4, num_workers=1, transport="in_process")
    whole = rollouts(PoolSpec(simulators=alone, **common), difficulties)
    for transport in ("in_process", "shared_memory"):
        simulators = SimulatorsConfig(num_envs=4, num_workers=2, transport=transport)
        spec = PoolSpec(simulators=simulators, **common)
        for one, other in zip(whole, rollouts(spec, difficulties), strict=True):
            for name in (*common["groups"], "reward", "terminated", "truncated"):
                assert torch.equal(one[name], other[name]), (transport, name)
    error = [(r["proprio"][..., :23] - r["critic"][..., 29:52]).abs() for r in whole]
    assert error[0].max() < 1e-6, "level 0 measures exactly"
    assert error[2][-1].max() > 0.05, "level 1 is in error by up to 0.08 rad"


def run_config(iterations):
    values = {
        "task": {**TASK, "difficulty": 0.5, "stagger_starts": False},
        "simulators": {"num_envs": 8, "num_workers": 2, "transport": "in_process"},
        "network": {
            "actor_groups": ["proprio"],
            "critic_groups": ["proprio", "critic"],
            "hidden": [16],
            "critic_hidden": [16],
        },
        "training": {"horizon": 12, "iterations": iterations, "update_threads": 1},
        "adr": {"enabled": True, "increments": 4, "min_episodes": 16},
    }
    return parse_config(RunConfig, values)


def run(config, folder, resume=None):
    folder.mkdir()
    runner = Runner(config, folder, build_ppo(config), show_progress=False)
    if resume:
        runner.resume(resume)
        assert runner.tally.adr.difficulty < config.task.difficulty
        assert runner.pool.telemetry["control.difficulty"].item() == runner.tally.adr.difficulty
    runner.run()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return runner, [json.loads(line) for line in lines]


def test_a_run_that_fails_gets_easier_and_its_checkpoint_knows(tmp_path):
    """No episode of an untrained policy succeeds; 8 end in each rollout of 12 steps.

    The first iteration collects two rollouts.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    runner, records = run(run_config(1), first)
    assert [record["adr/level"] for record in records] == [0.25]
    assert runner.control.status.adr_level == 0.25
    assert records[0]["adr/randomization.object_mass_scale_high"] == pytest.approx(1.5)
    state = json.loads((first / "checkpoints" / "latest" / "state.json").read_text())
    assert state["adr"]["difficulty"] == 0.25
    resumed, records = run(run_config(3), second, resume=first)
    assert [record["adr/level"] for record in records] == [0.25, 0.0]
    assert resumed.tally.adr.difficulty == 0.0
