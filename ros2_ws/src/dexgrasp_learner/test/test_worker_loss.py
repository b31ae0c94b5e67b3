"""Workers that are killed, that hang, that cannot save, and that differ from each other."""

import argparse
import os
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmarks import faults
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.pool.config import SimulatorsConfig, WorkerSpec
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.restarts import WINDOW_S, RestartBudget
from dexgrasp_learner.pool.worker_connection import WorkerDied
from dexgrasp_learner.run.assembly import pool_spec
from dexgrasp_learner.run.processes import train_nodes
from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport.shared_memory import run_folder
from dexgrasp_sim.transport.telemetry import read_statuses

pytestmark = pytest.mark.slow

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
SEED, HORIZON, TIMEOUT_S = 6, 4, 120.0
TOTALS = ("num_envs", "num_workers")
CONFIG = {"observations": {"state": {"shape": [4]}}, "action_dim": 2, "episode_length": 3}


@pytest.fixture
def build(tmp_path, make_spec):
    """Builds started pools that are closed after the test and leave nothing."""
    pools = []

    def build(config=None, **changes):
        values = {
            "kind": "synthetic",
            "config": {**CONFIG, **(config or {})},
            "groups": ("state",),
            "horizon": HORIZON,
            "num_envs": 5,
            "num_workers": 2,
            "seed": SEED,
            "log_dir": tmp_path / "logs",
            "timeout_s": TIMEOUT_S,
            "start_timeout_s": TIMEOUT_S,
            "restarts": 3,
        }
        if "workers" in changes:
            values = {name: value for name, value in values.items() if name not in TOTALS}
        pools.append(make_pool(make_spec(**{**values, **changes})))
        return pools[-1]

    yield build
    for pool in pools:
        seen = pids(pool)
        pool.close()
        assert not run_folder(pool.run_id).exists()
        assert not any(Path(f"/proc/{pid}").exists() for pid in seen)
        assert pool.workers_alive == 0


def pids(pool):
    return [status.pid for status in read_statuses(pool.telemetry) if status.pid]


def kill(pool, index, number=signal.SIGKILL):
    os.kill(pids(pool)[index], number)


def step(pool, slot):
    pool.tensors["actions"][slot] = 0.5
    pool.send(slot, 1)
    pool.wait(slot)


def observes(pool, slot, envs, steps):
    (spec,) = pool.observation_specs
    return all(
        torch.equal(pool.tensors["state"][slot, env], expected_observation(spec, SEED, env, steps))
        for env in envs
    )


def begun_anew(pool, slot, rows):
    """Whether a slot says of these environments that they have just begun, and of no others."""
    part = {name: tensor[slot, rows] for name, tensor in pool.tensors.items() if name != "actions"}
    return (
        pool.tensors["valid"][slot].logical_not().nonzero().squeeze(1).tolist()
        == [*range(*rows.indices(pool.num_envs))]
        and not part["reward"].any()
        and not part["terminated"].any()
        and not part["episode"].any()
        and bool(part["truncated"].all())
        and observes(pool, slot, range(*rows.indices(pool.num_envs)), steps=0)
    )


def test_killed_and_hung_workers_are_replaced_and_all_goes_on(build, capsys, tmp_path):
    pool = build(timeout_s=3.0)
    pool.start()
    first, second = slice(0, 3), slice(3, 5)
    step(pool, 0)
    assert pool.tensors["valid"][1].all()
    newest = read_statuses(pool.telemetry)[1].newest_episode

    kill(pool, 1, signal.SIGSTOP)
    pool.send(1, 1)
    kill(pool, 1)  # with a step before it
    pool.wait(1)
    assert begun_anew(pool, 2, second)
    assert observes(pool, 2, range(3), steps=2)
    assert pool.workers_alive == 2

    kill(pool, 0)  # while the learner infers
    step(pool, 2)
    assert begun_anew(pool, 3, first)
    assert pool.tensors["valid"][3, second].all() and observes(pool, 3, (3, 4), steps=1)

    kill(pool, 1, signal.SIGSTOP)
    step(pool, 3)
    assert begun_anew(pool, 4, second)

    pool.roll_over()
    step(pool, 0)
    assert pool.tensors["valid"][1].all()
    assert observes(pool, 1, range(3), steps=2) and observes(pool, 1, (3, 4), steps=1)
    assert pool.tensors["sequence"][1].tolist() == [5, 5] and pool.slot_mismatches == 0
    assert [(restart.index, restart.hung) for restart in pool.restarts] == [
        (1, False),
        (0, False),
        (1, True),
    ]
    assert all(restart.noticed_s < restart.ready_s for restart in pool.restarts)
    assert read_statuses(pool.telemetry)[1].newest_episode >= newest + 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "dexgrasp:" in line]
    assert len(lines) == 3
    assert "worker 1 died (exit code -9)" in lines[0] and "worker_1.log" in lines[0]
    assert "worker 1 hangs" in lines[2] and "restart 3" in lines[2]


def test_all_workers_at_once_also_while_they_save(build, tmp_path):
    pool = build()
    pool.start()
    step(pool, 0)
    for index in range(2):
        kill(pool, index)
    step(pool, 1)
    assert begun_anew(pool, 2, slice(0, 5))
    assert {restart.index for restart in pool.restarts} == {0, 1}

    kill(pool, 0)
    pool.save_state(tmp_path / "state")
    assert begun_anew(pool, 2, slice(0, 5)), "the newest slot, in which worker 0 began once more"
    step(pool, 2)
    step(pool, 3)
    assert pool.tensors["valid"][3:].all()
    pool.load_state(tmp_path / "state")
    assert begun_anew(pool, 0, slice(0, 5))
    step(pool, 0)
    assert observes(pool, 1, range(5), steps=1)


def test_a_full_disk_costs_a_state_and_no_worker(build, tmp_path):
    pool = build(num_workers=1, num_envs=2)
    pool.start()
    step(pool, 0)
    part = tmp_path / "worker_0.part"
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        pool.save_state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"], "nothing half-written is left"
    step(pool, 1)
    assert pool.tensors["valid"][2].all() and not pool.restarts
    pool.save_state(tmp_path)
    assert (tmp_path / "worker_0.safetensors").is_file()


def test_what_is_lost_again_and_again_ends_the_run(build):
    fault = {"fault": "raise", "fault_step": 1, "fault_env": 1}
    pool = build(fault, restarts=1, num_workers=1, num_envs=2)
    pool.start()
    step(pool, 0)
    assert begun_anew(pool, 1, slice(0, 2))
    with pytest.raises(WorkerDied, match="fault on request at step 1") as caught:
        step(pool, 1)
    assert caught.value.index == 0
    log = (Path(pool.spec.log_dir) / "worker_0.log").read_text()
    assert log.count("FaultError: fault on request") == 2, "the first worker's log is kept"


def test_the_start_is_not_tried_again(build):
    pool = build({"fault": "schema"}, num_workers=1, num_envs=1)
    with pytest.raises(WorkerDied, match="schema"):
        pool.start()
    assert not pool.restarts


def start_by_hand(line):
    """What a person does with the command that the learner prints."""
    return subprocess.Popen(shlex.split(line.split("by hand: ")[1]))


def test_a_small_worker_started_by_hand_beside_a_large_spawned_one(build, capsys):
    specs = (WorkerSpec(num_envs=3), WorkerSpec(num_envs=1, spawn=False))
    pool = build(workers=specs)
    (line,) = capsys.readouterr().err.splitlines()
    assert "worker 1 is to be started by hand" in line
    workers = [start_by_hand(line)]
    pool.start()
    assert pool.layout.slices == ((0, 3), (3, 4)) and pool.workers_alive == 2
    step(pool, 0)
    assert observes(pool, 1, range(4), steps=1)

    kill(pool, 1)
    pool.send(1, 1)
    assert workers[0].wait(TIMEOUT_S) == -signal.SIGKILL
    person = threading.Timer(0.2, lambda: workers.append(start_by_hand(line)))
    person.start()
    pool.wait(1)
    assert capsys.readouterr().err.count(line) == 1, "the command is shown once more"
    assert begun_anew(pool, 2, slice(3, 4))
    step(pool, 2)
    assert observes(pool, 3, range(3), steps=3) and observes(pool, 3, [3], steps=1)
    pool.close()
    assert workers[1].wait(TIMEOUT_S) == 0


def test_workers_that_differ_must_add_up():
    shares = [{"num_envs": 3, "threads": 2}, {"num_envs": 1}]
    for given in ({}, {"num_envs": 4}, {"num_workers": 2}, {"num_envs": 4, "num_workers": 2}):
        config = SimulatorsConfig(workers=shares, **given)  # type: ignore[arg-type]
        assert (config.shares, config.num_envs, config.num_workers) == ((3, 1), 4, 2)
        assert parse_config(SimulatorsConfig, to_dict(config)) == config
    assert SimulatorsConfig(num_envs=4, num_workers=2).shares == (2, 2)
    for wrong in ({"num_envs": 5, "num_workers": 2}, {"num_envs": 4, "num_workers": 1}):
        with pytest.raises(ValueError, match="2 with 4 environments"):
            SimulatorsConfig(workers=shares, **wrong)  # type: ignore[arg-type]
    for wrong in ([{"num_envs": "many"}], [{"threads": 2}], [3], 3):
        with pytest.raises(ConfigError, match="workers"):
            parse_config(SimulatorsConfig, {"workers": wrong})


def test_a_run_config_names_its_workers():
    overrides = [
        "simulators.workers=[{num_envs: 12, threads: 2}, {num_envs: 4, spawn: false}]",
        "simulators.restarts=7",
    ]
    config = load_run_config(SMOKE, overrides)
    spec = pool_spec(config, None, ("proprio",))
    assert spec.simulators.worker_specs == (WorkerSpec(12, threads=2), WorkerSpec(4, spawn=False))
    assert [order["threads"] for order in spec.orders()] == [2, 1]
    assert spec.simulators.restarts == 7 and spec.simulators.num_envs == 16
    for env, worker in ((0, 1), (11, 1), (12, 2), (15, 2)):
        nodes = train_nodes(SMOKE, overrides=overrides, env_index=env)
        watching = [index for index, node in enumerate(nodes) if "env_index" in node.parameters]
        assert watching == [worker], "after the learner come the workers' nodes"


def test_restarts_are_counted_per_worker_and_forgotten_after_a_while():
    now_s = [0.0]
    budget = RestartBudget(2, lambda: now_s[0])
    assert [budget.take(0) for _ in range(3)] == [True, True, False]
    assert budget.take(1)
    now_s[0] = WINDOW_S - 1.0
    assert not budget.take(0)
    assert budget.take(1)
    now_s[0] = WINDOW_S
    assert [budget.take(0) for _ in range(3)] == [True, True, False]
    assert [budget.take(1) for _ in range(2)] == [True, False]
    assert not RestartBudget(0, time.monotonic).take(0)


def test_training_goes_on_through_random_faults():
    """A few of what `dexgrasp bench faults` does, here with workers that take turns."""
    parser = argparse.ArgumentParser()
    faults.add_arguments(parser)
    options = (
        "--kinds workers --workers 2 --groups 2 --kills 2 --hangs 1 --pause-s 0.5 --timeout-s 3"
    )
    _, figures = faults.measure(parser.parse_args(options.split()))
    assert (figures["kills"], figures["hangs"]) == (2, 1)
    assert figures["nans"] > 0
    assert figures["survived"] == figures["injected"] == 3 + figures["nans"]
    assert figures["weights_finite"]
    assert (figures["leaked_segments"], figures["leaked_processes"]) == (0, 0)
    assert figures["slot_mismatches"] == 0
    assert figures["invalid_steps"] == 3 * 4 + figures["nans"], "each fault costs a worker's step"
