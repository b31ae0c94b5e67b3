"""Whole training runs, small ones: exact continuation, what they record and how they end."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dexgrasp_learner.algorithms.guards import NonFiniteLoss
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_learner.run.assembly import build_distillation, build_ppo, fresh_actor
from dexgrasp_learner.run.control import RunControl, RunState
from dexgrasp_learner.run.runner import Runner
from dexgrasp_learner.storage.checkpoint import load_actor, load_state
from dexgrasp_learner.storage.checkpoint_files import find_checkpoint
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.observations import all_specs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restore_torch")]

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
TIMEOUT_S = 60.0
BASE = ["task.episode_s=1.0", "simulators.num_envs=8"]
LOCAL = ["simulators.transport=in_process"]
SIGHTLESS = [*LOCAL, "network.actor_groups=[proprio, state]", "network.critic_groups=[critic]"]
"""Without images, hence fast."""
TINY = [
    *SIGHTLESS,
    "simulators.num_envs=8",
    "training.horizon=2",
    "training.checkpoint_every=1000",
]
EASY = [  # episodes of one step, in which the object, still falling, is high enough
    "task.control_hz=240",
    "task.physics.timestep_s=0.004166666666666667",
    "task.episode_s=0.004166666666666667",
    "task.success.height_m=0.001",
    "task.success.hold_s=0.001",
    "task.success.reach_m=20",
]
IMPOSSIBLE = [*EASY, "task.success.reach_m=0.001"]


def make_runner(folder, *overrides, build=build_ppo, **arguments):
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    config = load_run_config(SMOKE, [*BASE, *overrides])
    return Runner(config, folder, build(config), show_progress=False, **arguments)


def train(folder, *overrides, resume=False, **arguments):
    runner = make_runner(folder, *overrides, **arguments)
    if resume:
        runner.resume(folder)
    return runner.run()


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(first, second):
    """Whether two nests of plain values and tensors are equal, bit by bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def worker_state(path):
    """What a worker saved; rows of episodes that have not ended hold nothing."""
    tensors = load_file(path)
    ended = tensors["result.terminated"] | tensors["result.truncated"]
    tensors["result.episode"][~ended] = 0.0
    return tensors


def content(folder):
    """Everything in a run's last checkpoint but the config; the workers' shares joined."""
    checkpoint = find_checkpoint(folder)
    state = load_state(checkpoint)
    del state["config"]
    shares = [worker_state(path) for path in sorted((checkpoint / "simulators").iterdir())]
    return {
        "state": state,
        "actor": load_file(checkpoint / "actor.safetensors"),
        "training": torch.load(checkpoint / "training.pt", weights_only=True),
        "simulators": {name: torch.cat([share[name] for share in shares]) for name in shares[0]},
    }


def weights(folder):
    return content(folder)["actor"]


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """20 iterations in one go, in one process, with images and memory."""
    folder = tmp_path_factory.mktemp("long")
    train(folder, *LOCAL, "training.iterations=20")
    return folder


@pytest.mark.parametrize(("transport", "workers"), [("in_process", 2), ("shared_memory", 1)])
def test_10_and_10_iterations_are_20_to_the_last_bit(tmp_path, long_run, transport, workers):
    choice = [f"simulators.transport={transport}", f"simulators.num_workers={workers}"]
    train(tmp_path, *choice, "training.iterations=10")
    assert not same(weights(tmp_path), weights(long_run))
    summary = train(tmp_path, *choice, "training.iterations=20", resume=True)
    assert (summary.iterations, summary.env_steps) == (20, (1 + 20) * 8 * 8)
    assert (summary.slot_mismatches, summary.transport) == (0, transport)
    assert same(content(tmp_path), content(long_run))
    assert [record["iteration"] for record in records(tmp_path)] == [*range(1, 21)]
    assert records(tmp_path)[-1]["update/value"] == records(long_run)[-1]["update/value"]


def test_the_long_run_was_no_trivial_one(long_run):
    state = load_state(find_checkpoint(long_run))
    assert state["episodes"]["count"] >= 8 * 9, "all environments have ended several whole ones"
    memory = content(long_run)["training"]["memory"]
    assert memory["actor"].abs().sum() > 0 and memory["critic"].abs().sum() > 0
    fresh = fresh_actor(load_run_config(SMOKE, BASE)).state_dict()
    learned = content(long_run)["training"]["algorithm"]["actor"]
    assert not any(torch.equal(fresh[key], learned[key]) for key in fresh if "weight" in key)


def test_the_seed_alone_decides(tmp_path):
    overrides = [*TINY, "training.iterations=3"]
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        train(tmp_path / name, *overrides, f"seed={seed}")
    assert same(content(tmp_path / "first"), content(tmp_path / "again"))
    assert not same(weights(tmp_path / "first"), weights(tmp_path / "other"))


def test_checkpoints_come_when_due_and_at_the_end(tmp_path):
    train(tmp_path, *TINY, "training.iterations=5", "training.checkpoint_every=2")
    checkpoints = tmp_path / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "iteration_000002",
        "iteration_000004",
        "iteration_000005",
        "latest",
    ]
    assert os.readlink(checkpoints / "latest") == "iteration_000005"


class Clock:
    """Every look at it takes as long."""

    def __init__(self, tick_s):
        self.tick_s = tick_s
        self.now_s = 0.0

    def __call__(self):
        self.now_s += self.tick_s
        return self.now_s


def test_a_run_ends_when_its_time_is_over(tmp_path):
    limit = "training.max_minutes=10"
    summary = train(tmp_path, *TINY, limit, "training.iterations=1000", clock=Clock(tick_s=20.0))
    minutes = [record["run/minutes"] for record in records(tmp_path)]
    assert 1 < summary.iterations == len(minutes) < 30
    assert minutes == sorted(minutes)
    assert all(value < 10 for value in minutes[:-1]) and 9 < minutes[-1] < 12
    assert summary.checkpoint.endswith(f"iteration_{summary.iterations:06d}")


def test_a_run_ends_when_an_evaluation_reaches_the_target(tmp_path):
    summary = train(
        tmp_path,
        *TINY,
        *EASY,
        "training.iterations=9",
        "training.evaluate_every=2",
        "training.evaluation_episodes=4",
        "training.confirmation_episodes=6",
    )
    assert (summary.iterations, summary.evaluation_success, summary.success) == (2, 1.0, 1.0)
    found = [record.get("evaluation/success_rate") for record in records(tmp_path)]
    assert found == [None, 1.0]
    figures = records(tmp_path)[-1]
    assert figures["evaluation/episodes"] == 6, "those that chose the policy do not count"
    assert figures["evaluation/time_to_goal_s"] == pytest.approx(0.004)
    assert figures["evaluation/in_goal_region_fraction"] == 1.0


@pytest.mark.parametrize(("every", "evaluated"), [("2", [2, 4, 5]), ("null", [])])
def test_evaluations_come_when_due_and_at_the_end(tmp_path, every, evaluated):
    summary = train(
        tmp_path,
        *TINY,
        *IMPOSSIBLE,
        "training.iterations=5",
        f"training.evaluate_every={every}",
        "training.evaluation_episodes=4",
    )
    assert summary.iterations == 5
    found = [
        record["iteration"] for record in records(tmp_path) if "evaluation/success_rate" in record
    ]
    assert found == evaluated
    assert summary.evaluation_success == (0.0 if evaluated else None)


def test_evaluating_changes_nothing_about_the_training(tmp_path):
    common = [*TINY, *IMPOSSIBLE, "training.iterations=4", "training.evaluation_episodes=3"]
    train(tmp_path / "blind", *common, "training.evaluate_every=null")
    train(tmp_path / "watched", *common, "training.evaluate_every=1")
    assert "evaluation/success_rate" in records(tmp_path / "watched")[-1]
    blind, watched = content(tmp_path / "blind"), content(tmp_path / "watched")
    assert same(blind["training"]["algorithm"], watched["training"]["algorithm"])
    assert same(blind["simulators"], watched["simulators"])


def test_every_record_has_finite_figures(tmp_path):
    train(tmp_path, *TINY, *EASY, "training.iterations=2")
    for record in records(tmp_path):
        assert {"update/kl", "update/value", "run/reward", "episode/return"} <= record.keys()
        assert all(isinstance(value, int | float) for value in record.values())
        assert record["episode/length"] == 1.0 and record["episode/success"] == 1.0
        assert record["episode/in_goal_region"] == 1.0 and record["episode/drop_rate"] == 0.0
        assert record["episode/time_to_goal_s"] == pytest.approx(1 / 240, abs=1e-6)
        terms = sum(value for name, value in record.items() if name.startswith("reward/"))
        assert terms == pytest.approx(record["episode/return"], abs=1e-5)
        assert record["reward/reach"] > 0 == record["reward/curl"]
        assert [record[f"object/{name}"] for name in ("box", "cylinder", "sphere")] == [1.0] * 3


def test_the_status_tells_where_the_run_stands(tmp_path):
    control = RunControl()
    summary = train(tmp_path, *TINY, *EASY, "training.iterations=3", control=control)
    status = control.status
    assert (status.run_id, status.iteration, status.iterations) == (tmp_path.name, 3, 3)
    assert (status.env_steps, status.policy_version, status.episodes) == (64, 3, 64)
    assert (status.num_workers, status.success) == (2, 1.0)
    assert status.env_steps_per_s > 0 and math.isfinite(status.reward)
    assert 0 < status.rollout_fraction < 1 and 0 < status.update_fraction < 1
    assert status.schema_hash == load_state(Path(summary.checkpoint))["schema_hash"]


def test_a_loss_that_is_not_finite_ends_the_run_with_a_checkpoint(tmp_path):
    control = RunControl()
    faults = ["ppo.learning_rate=1e30", "ppo.schedule=fixed"]
    with pytest.raises(NonFiniteLoss, match="lower the learning rate"):
        train(tmp_path, *TINY, *faults, control=control)
    assert control.status.state is RunState.FAILED
    assert "not finite" in control.status.message
    assert control.status.workers_alive == 0
    assert control.status.checkpoint == str(find_checkpoint(tmp_path))
    actor, _, _ = load_actor(tmp_path)
    assert all(parameter.isfinite().all() for parameter in actor.parameters())


def test_a_failure_leaves_the_exact_checkpoint_of_its_iteration_alone(tmp_path):
    train(tmp_path, *TINY, "training.iterations=2")
    before = content(tmp_path)
    control = RunControl()
    with pytest.raises(NonFiniteLoss, match="critic_grad_norm not finite"):
        train(tmp_path, *TINY, "ppo.value_coefficient=1e30", resume=True, control=control)
    assert same(content(tmp_path), before)
    assert control.status.checkpoint == str(find_checkpoint(tmp_path))
    train(tmp_path, *TINY, "training.iterations=4", resume=True)
    train(tmp_path / "unharmed", *TINY, "training.iterations=4")
    assert same(content(tmp_path), content(tmp_path / "unharmed"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.hidden=[8]"], "`network.hidden` = "),
        (["simulators.num_workers=4"], "continue with the environments, workers"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, overrides, message):
    train(tmp_path, *TINY, "training.iterations=1")
    runner = make_runner(tmp_path, *TINY, *overrides)
    with pytest.raises(ConfigError, match=message):
        runner.resume(tmp_path)
    runner.close()


def make_teacher(config):
    """Acts decidedly, as its observations have it."""
    teacher = build_actor(
        config.network,
        all_specs(config.task),
        len(config.task.action_names),
        seed=9,
        view=config.table_view,
    )
    with torch.no_grad():
        list(teacher.head.parameters())[-2].mul_(50)
    return teacher


def distillation(config):
    return build_distillation(config, make_teacher(config))


def test_distillation_learns_to_act_like_the_teacher(tmp_path):
    overrides = [*SIGHTLESS, "training.iterations=25", "distillation.learning_rate=0.003"]
    summary = train(tmp_path, *overrides, build=distillation)
    losses = [record["update/imitation"] for record in records(tmp_path)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    student, config, _ = load_actor(Path(summary.run_dir))
    assert config == load_run_config(SMOKE, [*BASE, *overrides])
    fresh = build_actor(
        config.network,
        all_specs(config.task),
        student.action_dim,
        config.table_view,
        config.seed,
    )
    assert not same(student.state_dict(), fresh.state_dict())


def test_distillation_goes_on_exactly_too(tmp_path):
    overrides = [*TINY, "distillation.teacher_steps=64"]
    for folder, parts in (("whole", [6]), ("parts", [3, 6])):
        for part, iterations in enumerate(parts):
            train(
                tmp_path / folder,
                *overrides,
                f"training.iterations={iterations}",
                build=distillation,
                resume=part > 0,
            )
    assert same(content(tmp_path / "whole"), content(tmp_path / "parts"))


def test_reinforcement_learning_does_not_go_on_with_a_distillation(tmp_path):
    train(tmp_path, *TINY, "training.iterations=1", build=distillation)
    runner = make_runner(tmp_path, *TINY)
    with pytest.raises(ConfigError, match="the command that began the run"):
        runner.resume(tmp_path)
    runner.close()
