"""Whole runs whose updates overlap with the next rollout, and what runs tell about their time."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dexgrasp_learner.algorithms.guards import NonFiniteLoss
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_learner.run.assembly import build_distillation, build_ppo
from dexgrasp_learner.run.control import RunControl, RunState
from dexgrasp_learner.run.runner import Runner
from dexgrasp_learner.run.thread import RunThread
from dexgrasp_learner.storage.checkpoint import load_state
from dexgrasp_learner.storage.checkpoint_files import find_checkpoint
from dexgrasp_sim.tasks.grasp.observations import all_specs
from test_support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restore_torch")]

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
TIMEOUT_S = 120.0
TINY = [
    "simulators.transport=in_process", "simulators.num_envs=8", "training.horizon=2",
    "network.actor_groups=[proprio, state]", "network.critic_groups=[critic]",
    "training.checkpoint_every=1000", "task.episode_s=1.0",
]  # fmt: skip
OVERLAPPED = [*TINY, "simulators.pipeline=overlapped"]


def make_config(*overrides):
    return load_run_config(SMOKE, [*overrides])


def train(folder, *overrides, resume=False, build=build_ppo, control=None):
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    config = make_config(*overrides)
    runner = Runner(config, folder, build(config), control, show_progress=False)
    if resume:
        runner.resume(folder)
    return runner.run()


def distillation(config):
    actions = len(config.task.action_names)
    teacher = build_actor(
        config.network, all_specs(config.task), actions, seed=9, view=config.table_view
    )
    return build_distillation(config, teacher)


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(folder, other):
    """Weights, optimizers, generators and memories, bit by bit."""
    for load in (
        lambda path: load_file(path / "actor.safetensors"),
        lambda path: torch.load(path / "training.pt", weights_only=True),
        lambda path: {name: load_state(path)[name] for name in ("iteration", "env_steps", "adr")},
    ):
        first, second = (load(find_checkpoint(path)) for path in (folder, other))
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def wait_for(control, condition):
    wait_until(lambda: condition(control.status), lambda: f"a status other than {control.status}")


def test_overlapped_runs_repeat_and_go_on_exactly_from_a_checkpoint(tmp_path):
    overrides = [*OVERLAPPED, "training.checkpoint_every=3", "task.episode_s=0.6"]
    train(tmp_path / "whole", *overrides, "training.iterations=6")
    processes = ["simulators.transport=shared_memory", "simulators.num_workers=1"]
    train(tmp_path / "again", *overrides, *processes, "training.iterations=6")
    assert_same(tmp_path / "whole", tmp_path / "again")
    train(tmp_path / "parts", *overrides, "training.iterations=3")
    summary = train(tmp_path / "parts", *overrides, "training.iterations=6", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert (summary.env_steps, summary.slot_mismatches) == ((1 + 6) * 2 * 8, 0)
    lags = [record["run/policy_lag"] for record in records(tmp_path / "whole")]
    assert lags == [0, 1, 1, 0, 1, 1], "nothing is collected across a checkpoint"
    assert load_state(find_checkpoint(tmp_path / "whole"))["episodes"]["count"] > 0
    assert {"wait", "copy", "infer", "update", "join", "checkpoint"} <= summary.seconds.keys()


def test_distillation_overlaps_too(tmp_path):
    overrides = [*OVERLAPPED, "training.iterations=4", "distillation.teacher_steps=80"]
    for folder in ("first", "again"):
        train(tmp_path / folder, *overrides, build=distillation)
    assert_same(tmp_path / "first", tmp_path / "again")
    shares = [record["update/teacher_share"] for record in records(tmp_path / "first")]
    assert shares == [0.6, 0.4, 0.2, 0.0], "of the rollout that was learned from"


def test_an_overlapped_run_is_steered_between_iterations(tmp_path):
    (tmp_path / "logs").mkdir()
    run = RunThread(make_config(*OVERLAPPED, "training.iterations=1000000"), tmp_path)
    run.start()
    try:
        wait_for(run.control, lambda status: status.iteration >= 3)
        saved = load_state(Path(run.control.save(TIMEOUT_S)))
        assert saved["env_steps"] == (1 + saved["iteration"]) * 2 * 8
        run.control.pause()
        wait_for(run.control, lambda status: status.state is RunState.PAUSED)
        assert Path(run.control.save(TIMEOUT_S)).is_dir()
        run.control.resume()
        wait_for(run.control, lambda status: status.policy_lag == 1)
    finally:
        run.stop(TIMEOUT_S)
    assert run.error is None and run.summary is not None
    assert run.summary.env_steps == (1 + run.summary.iterations) * 2 * 8
    assert run.control.status.state is RunState.FINISHED


def test_an_update_that_fails_beside_a_rollout_ends_the_run(tmp_path):
    control = RunControl()
    faults = ["ppo.learning_rate=1e30", "ppo.schedule=fixed"]
    with pytest.raises(NonFiniteLoss, match="lower the learning rate"):
        train(tmp_path, *OVERLAPPED, *faults, control=control)
    assert control.status.state is RunState.FAILED
    assert control.status.checkpoint == str(find_checkpoint(tmp_path))


def test_where_the_time_went_is_told_for_the_learner_and_its_workers(tmp_path):
    summary = train(tmp_path, *TINY, "training.iterations=3", "simulators.num_workers=2")
    assert {"wait", "infer", "update", "checkpoint"} <= summary.seconds.keys()
    assert all(seconds >= 0 for seconds in summary.seconds.values())
    assert [worker["steps"] for worker in summary.worker_seconds] == [8, 8]
    assert all(worker["simulating"] > 0 for worker in summary.worker_seconds)
    lines = records(tmp_path)
    for stage in ("wait", "infer", "update", "workers_simulating", "workers_waiting"):
        times = [line[f"time/{stage}"] for line in lines]
        assert all(time >= 0 for time in times)
    total_s = sum(line["time/update"] for line in lines)
    assert total_s == pytest.approx(summary.seconds["update"], abs=2e-3)


def test_images_in_host_memory_change_nothing_about_a_run(tmp_path):
    overrides = [
        "simulators.transport=in_process", "training.horizon=2", "training.iterations=2",
        "ppo.micro_batches=2",
    ]  # fmt: skip
    for storage in ("device", "host"):
        for pipeline in ("barrier", "overlapped"):
            train(
                tmp_path / f"{storage}_{pipeline}",
                *overrides,
                f"training.image_storage={storage}",
                f"simulators.pipeline={pipeline}",
            )
    for pipeline in ("barrier", "overlapped"):
        assert_same(tmp_path / f"device_{pipeline}", tmp_path / f"host_{pipeline}")


def test_a_runner_that_never_ran_is_closed_twice(tmp_path):
    (tmp_path / "logs").mkdir()
    config = make_config(*OVERLAPPED)
    runner = Runner(config, tmp_path, build_ppo(config), show_progress=False)
    runner.close()
    runner.close()
