"""Workers behind TCP: the same rollout as in this process, and how the loss of one shows."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_group import WorkerTimeout
from dexgrasp_learner.pool.worker_process import WorkerDied
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport.layout import RESULT_NAMES
from dexgrasp_sim.transport.protocol import Message, MessageType
from dexgrasp_sim.transport.tcp import connect_tcp, parse_address
from dexgrasp_sim.worker.env_slice import state_path

pytestmark = pytest.mark.slow

TIMEOUT_S = 60.0
GROUPS = {
    "depth": {"shape": [24, 32], "dtype": "int16"},
    "proprio": {"shape": [7]},
    "half": {"shape": [3], "dtype": "float16"},
    "contact": {"shape": [4], "dtype": "bool"},
}
SPEC = PoolSpec(
    kind="synthetic",
    config={"observations": GROUPS, "action_dim": 3, "episode_length": 3},
    groups=tuple(GROUPS),
    horizon=3,
    num_envs=5,
    num_workers=2,
    seed=4,
    env_offset=7,
    transport="in_process",
    timeout_s=TIMEOUT_S,
    start_timeout_s=TIMEOUT_S,
)


def remote(**changes):
    values = {**vars(SPEC), "transport": "remote", "listen": "127.0.0.1:0", **changes}
    return make_pool(PoolSpec(**{k: v for k, v in values.items() if not k.startswith("__")}))


@pytest.fixture
def start_worker():
    """Starts remote workers; none outlives the test."""
    workers = []

    def start(address, index):
        words = ["-m", "dexgrasp_sim.worker.remote", "--learner", address, "--index", str(index)]
        workers.append(subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE))
        return workers[-1]

    yield start
    for worker in workers:
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


def test_remote_workers_write_what_environments_in_this_process_write(start_worker, tmp_path):
    here, there = make_pool(SPEC), remote()
    workers = [start_worker(there.address, index) for index in range(2)]
    for pool in (here, there):
        pool.start()
        pool.set_difficulty(0.5)
        spec = TensorSpec("proprio", (7,))
        assert torch.equal(pool.tensors["proprio"][0, 4], expected_observation(spec, 4, 7 + 4, 0))
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


def test_a_lost_worker_is_named_and_the_others_go_on(start_worker):
    pool = remote(timeout_s=1.0)
    workers = [start_worker(pool.address, index) for index in range(2)]
    pool.start()
    os.kill(workers[0].pid, signal.SIGSTOP)
    pool.send(0, 0)
    with pytest.raises(WorkerTimeout, match=r"workers \[0\] at 127\.0\.0\.1:\d+ have not"):
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
    start_worker, tmp_path
):
    pool = remote()
    workers = [start_worker(pool.address, index) for index in range(2)]
    pool.start()
    state_path(tmp_path, 0).mkdir()
    with pytest.raises(OSError, match=r"worker 0: .*directory"):
        pool.save_state(tmp_path)
    roll(pool, torch.Generator().manual_seed(1))
    assert pool.slot_mismatches == 0
    state_path(tmp_path, 0).rmdir()
    pool.save_state(tmp_path)
    assert state_path(tmp_path, 0).stat().st_size > 0
    pool.close()
    assert [worker.wait(TIMEOUT_S) for worker in workers] == [0, 0]


def test_a_worker_leaves_with_its_learner(start_worker):
    with socket.create_server(("127.0.0.1", 0)) as server:
        worker = start_worker(f"127.0.0.1:{server.getsockname()[1]}", 0)
        server.settimeout(TIMEOUT_S)
        connection, _ = server.accept()
        connection.recv(32)
        connection.close()
    assert worker.wait(TIMEOUT_S) == 1
    assert b"the learner is gone" in worker.stderr.read()


def test_strangers_and_workers_without_a_place_are_sent_away(start_worker):
    pool = remote(num_workers=1, start_timeout_s=20.0)
    stranger = socket.create_connection(parse_address(pool.address))
    stranger.sendall(b"GET / HTTP/1.1\r\nHost: learner\r\n\r\n")
    placeless = connect_tcp(pool.address)
    placeless.send(Message(MessageType.HELLO, payload={"index": 3}))
    right = start_worker(pool.address, 0)
    pool.start()
    with pytest.raises(ConnectionResetError):
        stranger.recv(1)
    answer = placeless.expect(MessageType.ERROR, TIMEOUT_S)
    assert answer.payload == {"text": "there is no place for worker 3; free are [0]"}
    pool.close()
    assert right.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("address", ["", "29600", "host:", ":1", "host:port", "host:70000"])
def test_an_address_needs_host_and_port(address):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        remote(listen=address)
