"""Workers behind TCP: the same rollout as in this process, and how the loss of one shows."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file

from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.worker_connection import WorkerDied
from dexgrasp_learner.pool.worker_group import WorkerTimeout
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport.handshake import WrongSecret
from dexgrasp_sim.transport.layout import COUNTERS, RESULT_NAMES
from dexgrasp_sim.transport.protocol import Message, MessageType
from dexgrasp_sim.transport.secret import find_secret
from dexgrasp_sim.transport.tcp import connect_tcp, parse_address
from dexgrasp_sim.worker.env_slice import state_path

pytestmark = pytest.mark.slow

TIMEOUT_S = 120.0
NEWEST_EPISODE = COUNTERS.index("newest_episode")
GROUPS = {
    "depth": {"shape": [24, 32], "dtype": "int16"},
    "proprio": {"shape": [7]},
    "half": {"shape": [3], "dtype": "float16"},
    "contact": {"shape": [4], "dtype": "bool"},
}
SEED, OFFSET = 4, 7


@pytest.fixture
def secret_path(tmp_path, monkeypatch):
    """Of all runs of a test."""
    for name in ("DEXGRASP_SECRET", "DEXGRASP_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "secret"


@pytest.fixture
def build(make_spec, secret_path):
    """Builds pools that are closed after the test."""
    pools = []

    def build(transport="remote", **changes):
        values = {
            "kind": "synthetic",
            "config": {"observations": GROUPS, "action_dim": 3, "episode_length": 3},
            "groups": tuple(GROUPS),
            "horizon": 3,
            "num_envs": 5,
            "num_workers": 2,
            "seed": SEED,
            "env_offset": OFFSET,
            "transport": transport,
            "listen": "127.0.0.1:0" if transport == "remote" else "",
            "timeout_s": TIMEOUT_S,
            "start_timeout_s": TIMEOUT_S,
            "restarts": 0,
            "secret_path": secret_path,
        }
        pools.append(make_pool(make_spec(**{**values, **changes})))
        return pools[-1]

    yield build
    for pool in pools:
        pool.close()
        assert transport_of(pool) == "in_process" or pool.workers_alive == 0


def transport_of(pool):
    return pool.spec.simulators.transport


@pytest.fixture
def start_worker(secret_path):
    """Starts remote workers that know the secret; none outlives the test."""
    workers = []

    def start(address, index, *options):
        words = ["-m", "dexgrasp_sim.worker", "--learner", address, "--index", str(index)]
        command = [sys.executable, *words, "--secret-file", str(secret_path), *options]
        workers.append(subprocess.Popen(command, stderr=subprocess.PIPE))
        return workers[-1]

    yield start
    for worker in workers:
        worker.terminate()
        try:
            worker.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.communicate(timeout=TIMEOUT_S)


def roll(pool, generator):
    """A rollout with random actions; copies of everything that came."""
    for slot in range(pool.horizon):
        pool.tensors["actions"][slot] = torch.randn(pool.num_envs, 3, generator=generator)
        pool.send(slot, policy_version=slot)
        pool.wait(slot)
    copies = {name: tensor.clone() for name, tensor in pool.tensors.items()}
    pool.roll_over()
    return copies


def test_remote_workers_write_what_environments_in_this_process_write(
    build, start_worker, tmp_path
):
    here, there = build("in_process"), build()
    workers = [start_worker(there.address, index) for index in range(2)]
    for pool in (here, there):
        pool.start()
        pool.set_difficulty(0.5)
        spec = TensorSpec("proprio", (7,))
        assert torch.equal(
            pool.tensors["proprio"][0, 4], expected_observation(spec, SEED, OFFSET + 4, 0)
        )
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for _ in range(2):
        expected, found = (
            roll(pool, generator) for pool, generator in zip((here, there), generators)
        )
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for name, pool in (("here", here), ("there", there)):
        pool.save_state(tmp_path / name)
    ours, theirs = (load_file(state_path(tmp_path / name, 1)) for name in ("here", "there"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())

    newest = {name: there.tensors[name][0].clone() for name in (*GROUPS, *RESULT_NAMES)}
    roll(there, generators[1])
    there.load_state(tmp_path / "here")
    assert all(torch.equal(there.tensors[name][0], tensor) for name, tensor in newest.items())
    assert there.slot_mismatches == 0
    assert [timing["steps"] for timing in there.timings()] == [9.0, 9.0]

    there.close()
    assert [worker.wait(TIMEOUT_S) for worker in workers] == [0, 0]
    assert there.workers_alive == 0


def test_a_lost_worker_is_named_and_the_others_go_on(build, start_worker):
    pool = build(timeout_s=5.0)
    workers = [start_worker(pool.address, index) for index in range(2)]
    pool.start()
    os.kill(workers[0].pid, signal.SIGSTOP)
    pool.send(0, 0)
    with pytest.raises(WorkerTimeout, match=r"workers \[0\] have not .* at 127\.0\.0\.1:\d+"):
        pool.wait(0)
    os.kill(workers[0].pid, signal.SIGCONT)
    pool.wait(0)
    workers[1].kill()
    workers[1].wait(TIMEOUT_S)
    with pytest.raises(WorkerDied, match="simulator worker 1 died"):
        pool.send(1, 0)
        pool.wait(1)
    assert pool.workers_alive == 1

    pool.close()
    assert workers[0].wait(TIMEOUT_S) == 0


def test_a_state_that_cannot_be_written_costs_the_checkpoint_and_not_the_run(
    build, start_worker, tmp_path
):
    pool = build()
    workers = [start_worker(pool.address, index) for index in range(2)]
    pool.start()
    state_path(tmp_path, 0).mkdir()
    with pytest.raises(OSError, match=r"worker_0\.safetensors: .*directory"):
        pool.save_state(tmp_path)
    roll(pool, torch.Generator().manual_seed(1))
    assert pool.slot_mismatches == 0
    state_path(tmp_path, 0).rmdir()
    pool.save_state(tmp_path)
    assert state_path(tmp_path, 0).stat().st_size > 0
    pool.close()
    assert [worker.wait(TIMEOUT_S) for worker in workers] == [0, 0]


def test_a_worker_leaves_with_its_learner(build, start_worker):
    pool = build(num_workers=1, spawn=False)
    worker = start_worker(pool.address, 0)
    pool.start()
    pool._workers.workers[0].channel.close()  # as if the learner had ended without a STOP
    assert worker.wait(TIMEOUT_S) == 1
    assert re.search(rb"the learner at 127\.0\.0\.1:\d+ is gone", worker.stderr.read())


def test_strangers_and_workers_without_a_place_are_sent_away(
    build, start_worker, secret_path, capfd
):
    pool = build(num_workers=1)
    stranger = socket.create_connection(parse_address(pool.address), TIMEOUT_S)
    stranger.sendall(b"GET / HTTP/1.1\r\nHost: learner\r\n\r\n")
    with pytest.raises(WrongSecret, match="the learner refuses this secret"):
        connect_tcp(pool.address, b"not the secret of this run, but as long")
    placeless = connect_tcp(pool.address, find_secret(secret_path))
    placeless.send(Message(MessageType.HELLO, payload={"index": 3}))
    answer = placeless.expect(MessageType.ERROR, TIMEOUT_S)
    assert answer.payload == {"text": "there is no worker 3; this run has 0 to 0"}
    assert len(stranger.recv(100, socket.MSG_WAITALL)) == 38, "an opening, then the end"
    assert pool.refused_connections == 3
    right = start_worker(pool.address, 0)
    pool.start()
    pool.close()
    assert right.wait(TIMEOUT_S) == 0
    assert pool.refused_connections == 3
    log = capfd.readouterr().err
    assert "not a dexgrasp peer (connection 1 that was refused)" in log
    assert "it does not know the secret of this run (connection 2" in log
    assert f"is a copy of the secret in {secret_path}" in log


def test_a_worker_with_another_secret_is_refused_in_one_line_and_not_tried_again(
    build, start_worker, tmp_path
):
    pool = build(num_workers=1)
    other = tmp_path / "other"
    other.write_text("another secret that is long enough")
    other.chmod(0o600)
    worker = start_worker(pool.address, 0, "--retry", "3", "--secret-file", str(other))
    assert worker.wait(TIMEOUT_S) == 2
    said = b"dexgrasp worker: the learner refuses this secret; take the one of its run\n"
    assert worker.stderr.read() == said
    assert pool.refused_connections == 1


def begun_anew(pool, slot, envs):
    """Whether a slot says of these environments that they have just begun, and of no others."""
    begun = pool.tensors["valid"][slot].logical_not().nonzero().squeeze(1).tolist()
    spec = next(spec for spec in pool.observation_specs if spec.name == "proprio")
    observed = pool.tensors["proprio"][slot]
    return begun == envs and all(
        torch.equal(observed[env], expected_observation(spec, SEED, OFFSET + env, steps=0))
        for env in envs
    )


def step(pool, slot):
    pool.tensors["actions"][slot] = 0.5
    pool.send(slot, 1)
    pool.wait(slot)


def test_a_killed_worker_that_somebody_starts_again_goes_on_in_its_place(
    build, start_worker, capsys, tmp_path
):
    pool = build(restarts=2)
    workers = [start_worker(pool.address, index) for index in range(2)]
    pool.start()
    step(pool, 0)
    newest = pool.telemetry["telemetry.counters"][1, NEWEST_EPISODE].item()
    os.kill(workers[1].pid, signal.SIGSTOP)
    pool.send(1, 1)
    workers[1].kill()  # with a step before it
    assert workers[1].wait(TIMEOUT_S) == -signal.SIGKILL
    person = threading.Timer(0.2, lambda: workers.append(start_worker(pool.address, 1)))
    person.start()
    pool.wait(1)
    person.join()
    assert begun_anew(pool, 2, [3, 4])
    assert "worker 1 is to be started again" in capsys.readouterr().err
    step(pool, 2)
    assert pool.workers_alive == 2 and pool.slot_mismatches == 0
    assert [(restart.index, restart.hung) for restart in pool.restarts] == [(1, False)]
    assert pool.telemetry["telemetry.counters"][1, NEWEST_EPISODE].item() > newest
    pool.roll_over()
    assert pool.tensors["sequence"][0].tolist() == [3, 3]

    workers[0].kill()
    workers[0].wait(TIMEOUT_S)
    again = start_worker(pool.address, 0)  # before the loss of the other one is noticed
    pool.save_state(tmp_path)
    assert begun_anew(pool, 0, [0, 1, 2])
    pool.load_state(tmp_path)
    step(pool, 0)
    assert pool.tensors["valid"][1].all() and pool.slot_mismatches == 0
    pool.close()
    assert [worker.wait(TIMEOUT_S) for worker in (workers[2], again)] == [0, 0]


def test_a_worker_that_retries_comes_back_by_itself(build, start_worker):
    fault = {"fault": "exit", "fault_step": 2, "fault_env": OFFSET}
    config = {"observations": GROUPS, "action_dim": 3, "episode_length": 3, **fault}
    pool = build(num_workers=1, restarts=1, config=config)
    worker = start_worker(pool.address, 0, "--retry", "1")
    pool.start()
    step(pool, 0)
    step(pool, 1)
    assert begun_anew(pool, 2, [0, 1, 2, 3, 4])
    step(pool, 2)
    assert pool.tensors["valid"][3].all()
    pool.close()
    assert worker.wait(TIMEOUT_S) == 0
    assert b"started anew (1 of 1)" in worker.stderr.read()


def test_a_hung_worker_is_parted_with_and_leaves(build, start_worker):
    pool = build(num_workers=1, restarts=1, timeout_s=1.0)
    workers = [start_worker(pool.address, 0)]
    pool.start()
    os.kill(workers[0].pid, signal.SIGSTOP)
    pool.send(0, 0)
    person = threading.Timer(1.5, lambda: workers.append(start_worker(pool.address, 0)))
    person.start()
    pool.wait(0)
    person.join()
    assert begun_anew(pool, 1, [0, 1, 2, 3, 4])
    assert [restart.hung for restart in pool.restarts] == [True]
    os.kill(workers[0].pid, signal.SIGCONT)
    assert workers[0].wait(TIMEOUT_S) == 1
    pool.close()
    assert workers[1].wait(TIMEOUT_S) == 0


def test_a_lost_worker_that_nobody_starts_is_waited_for_no_longer_than_said(build, start_worker):
    pool = build(num_workers=1, restarts=3, start_timeout_s=TIMEOUT_S)
    worker = start_worker(pool.address, 0)
    pool.start()
    simulators = replace(pool.spec.simulators, start_timeout_s=0.3)
    pool.spec = replace(pool.spec, simulators=simulators)
    worker.kill()
    worker.wait(TIMEOUT_S)
    with pytest.raises(WorkerTimeout, match=r"not connected within 0\.3 s.*--learner"):
        step(pool, 0)
    assert len(pool.restarts) == 1


@pytest.mark.parametrize("address", ["29600", "host:", ":1", "host:port", "host:70000"])
def test_an_address_needs_host_and_port(build, address):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        build(listen=address)


def test_remote_workers_need_an_address(build):
    with pytest.raises(ValueError, match="HOST:PORT"):
        build(listen="")
