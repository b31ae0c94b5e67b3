"""Learning beside collecting: the same numbers as in a fixed order, failures, exact continuation."""

import copy
import json

import pytest
import torch
from test_runner import (
    TINY,
    Background,
    content,
    distillation,
    make_runner,
    records,
    same,
    train,
)

from dexgrasp_learner.algorithms.ppo import NonFiniteLoss, Ppo, PpoConfig
from dexgrasp_learner.checkpoint import find_checkpoint, load_state
from dexgrasp_learner.collector import Collector
from dexgrasp_learner.env_pool import PoolSpec, WorkerDied, make_pool
from dexgrasp_learner.learning import Learning, OverlappedLearning
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.rollout import Rollout
from dexgrasp_learner.run_control import RunControl, RunState
from dexgrasp_learner.stopwatch import Stopwatch
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

SPECS = {"state": TensorSpec("state", (8,))}
NETWORK = NetworkConfig(
    actor_groups=("state",), critic_groups=("state",), memory="lstm", memory_size=5, hidden=(6,),
    critic_memory="lstm", critic_memory_size=5, critic_hidden=(6,),
)  # fmt: skip
HORIZON, ENVS, ITERATIONS = 4, 6, 5
OVERLAPPED = [*TINY, "simulators.pipeline=overlapped"]


def make_ppo():
    config = PpoConfig(epochs=2, minibatches=2, normalize_values=True)
    ppo = Ppo(build_actor(NETWORK, SPECS, 4), build_critic(NETWORK, SPECS), config, seed=3)
    spread = torch.linspace(0, 100, 400).view(1, 50, 8)
    for net in (ppo.actor, ppo.critic):
        net.update_statistics({"state": spread})
    return ppo


def make_pieces(kind, transport="in_process", **config):
    spec = PoolSpec(
        "synthetic", config, ("state",), HORIZON, ENVS, 2, seed=1, transport=transport, restarts=0
    )
    pool, ppo = make_pool(spec), make_ppo()
    rollout = Rollout(pool.tensors, ppo.groups, ppo.memory_sizes)
    return (
        pool,
        ppo,
        rollout,
        kind(pool, rollout, Collector(pool, rollout, ppo), ppo, Stopwatch(), update_threads=1),
    )


def test_overlapping_is_learning_from_the_policy_before_the_last_update():
    """Against one thread with two learners: one only acts, with the other's older weights."""
    pool, ppo, _, learning = make_pieces(OverlappedLearning)
    pool.start()
    learned = [learning.iterate(i, look_ahead=i + 1 < ITERATIONS) for i in range(ITERATIONS)]
    learning.close()
    assert [item.rollout.policy_version for item in learned] == [0, 0, 1, 2, 3]
    assert not learning.is_ahead

    pool, expected, rollout, _ = make_pieces(Learning)
    acting, twin = make_ppo(), rollout.twin()
    collector = Collector(pool, rollout, acting)
    pool.start()
    collector.collect(0)
    for iteration in range(ITERATIONS):
        acting.finish(rollout)
        twin.take(rollout)
        pool.roll_over()
        before = copy.deepcopy(expected.state_dict())
        assert expected.learn(twin) == learned[iteration].figures
        for name in ("actor", "critic", "value_normalizer"):
            getattr(acting, name).load_state_dict(before[name])
        collector.collect(iteration)
    for net, other in ((ppo.actor, expected.actor), (ppo.critic, expected.critic)):
        assert same(net.state_dict(), other.state_dict())


def test_the_divergence_of_the_first_minibatch_shows_the_lag():
    """It is that from the policy that acted; after learning in turn it would be zero."""
    kl = {}
    for kind in (Learning, OverlappedLearning):
        pool, ppo, _, learning = make_pieces(kind)
        ppo.config = PpoConfig(epochs=1, minibatches=1, schedule="fixed", learning_rate=0.01)
        pool.start()
        kl[kind] = [learning.iterate(i, look_ahead=True).figures["kl"] for i in range(3)]
        learning.close()
    assert kl[Learning] == pytest.approx([0, 0, 0], abs=1e-6)
    assert kl[OverlappedLearning][0] == pytest.approx(0, abs=1e-6)
    assert min(kl[OverlappedLearning][1:]) > 1e-4


def test_a_simulator_that_dies_meanwhile_does_not_undo_the_update():
    pool, ppo, _, learning = make_pieces(
        OverlappedLearning, "shared_memory", fault="exit", fault_step=HORIZON + 2
    )
    try:
        pool.start()
        before = copy.deepcopy(ppo.actor.state_dict())
        learned = learning.iterate(0, look_ahead=True)
        assert isinstance(learned.failure, WorkerDied)
        assert learned.figures["learning_rate"] > 0
        assert not same(before, ppo.actor.state_dict())
        assert not learning.is_ahead
    finally:
        pool.close()
        learning.close()


@pytest.mark.parametrize("transport", ["in_process", "shared_memory"])
def test_overlapped_runs_repeat_and_go_on_exactly_from_a_checkpoint(tmp_path, transport):
    overrides = [
        *OVERLAPPED, f"simulators.transport={transport}", "training.checkpoint_every=3",
        "task.episode_s=0.3",
    ]  # fmt: skip
    train(tmp_path / "whole", *overrides, "training.iterations=6")
    train(tmp_path / "again", *overrides, "training.iterations=6")
    assert same(content(tmp_path / "whole"), content(tmp_path / "again"))
    train(tmp_path / "parts", *overrides, "training.iterations=3")
    summary = train(tmp_path / "parts", *overrides, "training.iterations=6", resume=True)
    assert same(content(tmp_path / "whole"), content(tmp_path / "parts"))
    assert (summary.env_steps, summary.slot_mismatches) == (6 * 2 * 8, 0)
    lags = [record["run/policy_lag"] for record in records(tmp_path / "whole")]
    assert lags == [0, 1, 1, 0, 1, 1], "nothing is collected across a checkpoint"
    assert load_state(find_checkpoint(tmp_path / "whole"))["episodes"]["count"] > 0
    assert {"wait", "copy", "infer", "update", "join", "checkpoint"} <= summary.seconds.keys()


def test_distillation_overlaps_too(tmp_path):
    overrides = [*OVERLAPPED, "training.iterations=4", "distillation.teacher_steps=64"]
    for folder in ("first", "again"):
        train(tmp_path / folder, *overrides, build=distillation)
    assert same(content(tmp_path / "first"), content(tmp_path / "again"))
    shares = [record["update/teacher_share"] for record in records(tmp_path / "first")]
    assert shares == [0.75, 0.5, 0.25, 0.0], "of the rollout that was learned from"


def test_an_overlapped_run_is_steered_between_iterations(tmp_path):
    with Background(tmp_path, *OVERLAPPED, "training.iterations=1000000") as run:
        run.wait_for(lambda status: status.iteration >= 3)
        saved = load_state(find_checkpoint(tmp_path / run.control.save(60.0)))
        assert saved["env_steps"] == saved["iteration"] * 2 * 8
        run.control.pause()
        run.wait_for(lambda status: status.state is RunState.PAUSED)
        assert not run.runner.learning.is_ahead
        run.control.resume()
        run.wait_for(lambda status: status.policy_lag == 1)
        run.control.stop()
        summary = run.join()
    assert summary.env_steps == summary.iterations * 2 * 8
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
    assert [worker["steps"] for worker in summary.worker_seconds] == [6, 6]
    assert all(worker["simulating"] > 0 for worker in summary.worker_seconds)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
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
        device = content(tmp_path / f"device_{pipeline}")
        assert same(device, content(tmp_path / f"host_{pipeline}"))


def test_a_runner_that_never_ran_leaves_no_thread(tmp_path):
    runner = make_runner(tmp_path, *OVERLAPPED)
    runner.close()
    runner.close()
