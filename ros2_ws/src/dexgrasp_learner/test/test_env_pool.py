"""Pools of real worker processes, and what happens when these or the learner end badly."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.worker_connection import WorkerDied
from dexgrasp_learner.pool.worker_group import WorkerTimeout
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport import shared_memory
from dexgrasp_sim.transport.channel import connect
from dexgrasp_sim.transport.protocol import HEADER, Message, MessageType, ProtocolError
from dexgrasp_sim.transport.shared_memory import live_runs, run_folder, socket_path
from dexgrasp_sim.transport.telemetry import RunObserver, read_statuses
from test_support.waiting import wait_until

CONFIG = {
    "observations": {
        "depth": {"shape": [24, 32], "dtype": "int16"},
        "stereo_rgb": {"shape": [2, 3, 4, 5], "dtype": "uint8"},
        "proprio": {"shape": [7], "dtype": "float32"},
        "half": {"shape": [3], "dtype": "float16"},
        "contact": {"shape": [4], "dtype": "bool"},
    },
    "action_dim": 3,
    "episode_length": 3,
}
SEED = 5
HORIZON = 4
TIMEOUT_S = 120.0


@pytest.fixture
def run_id():
    name = f"test-{os.getpid()}-{os.urandom(4).hex()}"
    yield name
    assert not [*run_folder(name).parent.glob(f"*{name}*")]


@pytest.fixture
def build(run_id, tmp_path, make_spec):
    """Builds pools that are closed after the test."""
    pools = []

    def build(config=None, **changes):
        values = {
            "kind": "synthetic",
            "config": {**CONFIG, **(config or {})},
            "groups": tuple(CONFIG["observations"]),
            "horizon": HORIZON,
            "num_envs": 5,
            "num_workers": 2,
            "seed": SEED,
            "log_dir": tmp_path / "logs",
            "start_timeout_s": TIMEOUT_S,
            "restarts": 0,
            "run_id": f"{run_id}-{len(pools)}",
        }
        pools.append(make_pool(make_spec(**{**values, **changes})))
        return pools[-1]

    yield build
    for pool in pools:
        pool.close()
        assert not any(map(is_alive, pids(pool)))


def pids(pool):
    """Of the pool's workers that have attached."""
    own = {0, os.getpid()}
    return [status.pid for status in read_statuses(pool.telemetry) if status.pid not in own]


def is_alive(pid):
    return Path(f"/proc/{pid}").exists()


def step(pool, slot, actions=None, timeout_s=TIMEOUT_S):
    if actions is not None:
        pool.tensors["actions"][slot].copy_(actions)
    pool.send(slot, policy_version=1)
    pool.wait(slot, timeout_s)


def rollouts(pool, count, first_step=0):
    """Steps through whole rollouts; yields copies of all tensors after each."""
    generator = torch.Generator().manual_seed(11)
    actions = torch.rand(100, pool.num_envs, pool.action_dim, generator=generator) * 2 - 1
    for rollout in range(count):
        for slot in range(HORIZON):
            step(pool, slot, actions[first_step + rollout * HORIZON + slot])
        yield {name: tensor.clone() for name, tensor in pool.tensors.items()}
        pool.roll_over()


def same(first, second, but=()):
    return all(torch.equal(first[name], second[name]) for name in first if name not in but)


@pytest.mark.slow
def test_every_byte_is_right_over_several_rollouts(build):
    pool = build()
    pool.start()
    steps = 0
    for tensors in rollouts(pool, 3):
        for slot in range(HORIZON + 1):
            assert tensors["sequence"][slot].tolist() == [steps + slot] * 2
            for spec in pool.observation_specs:
                for env in range(pool.num_envs):
                    expected = expected_observation(spec, SEED, env, steps + slot)
                    assert torch.equal(tensors[spec.name][slot, env], expected)
        assert torch.equal(tensors["reward"][1:], tensors["actions"][..., 0])
        steps += HORIZON
    assert pool.slot_mismatches == 0
    assert [timing["steps"] for timing in pool.timings()] == [12.0, 12.0]


def test_episodes_end_where_they_should_and_slot_zero_starts_them(build):
    pool = build(transport="in_process")
    pool.start()
    assert pool.tensors["terminated"][0].all()
    assert pool.tensors["truncated"][0].all()
    tensors = next(rollouts(pool, 1))
    ended = tensors["terminated"][1:] | tensors["truncated"][1:]
    # environments 0 and 3 have 3 steps, 1 and 4 have 4, 2 has 5
    assert ended.nonzero().tolist() == [[2, 0], [2, 3], [3, 1], [3, 4]]
    assert tensors["terminated"].nonzero()[5:].tolist() == [[3, 0], [4, 4]]
    rows = tensors["episode"][4]
    assert rows[1].tolist()[1] == 4.0
    assert rows[1, 0].item() == pytest.approx(tensors["reward"][1:, 1].sum().item())
    assert not rows[0].any(), "no episode has ended in this step"
    pool.roll_over()
    assert torch.equal(pool.tensors["terminated"][0], tensors["terminated"][4])


@pytest.mark.slow
def test_who_simulates_changes_no_bit(build):
    pools = [
        build(transport="in_process", num_workers=1),
        build(transport="in_process", num_workers=2),
        build(num_workers=1),
        build(num_workers=2),
        build(num_workers=2, carrier="staged"),
    ]
    for pool in pools:
        pool.start()
    runs = [list(rollouts(pool, 2)) for pool in pools]
    for run in runs[1:]:
        assert all(same(a, b, but=("sequence",)) for a, b in zip(runs[0], run, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["in_process", "shared_memory"])
def test_a_saved_state_continues_bit_exactly(build, tmp_path, transport):
    pool = build(transport=transport)
    pool.start()
    before, after = rollouts(pool, 2)
    pool.start()
    next(rollouts(pool, 1))
    pool.save_state(tmp_path / "state")
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [
        "worker_0.safetensors",
        "worker_1.safetensors",
    ]
    next(rollouts(pool, 1))
    pool.load_state(tmp_path / "state")
    assert same(
        {name: pool.tensors[name][0] for name in before},
        {name: before[name][-1] for name in before},
        but=("sequence", "actions"),
    )
    continued = next(rollouts(pool, 1, first_step=HORIZON))
    assert same(continued, after, but=("sequence",))
    assert pool.slot_mismatches == 0


def test_a_state_of_another_split_is_refused(build, tmp_path):
    pool = build(transport="in_process")
    pool.start()
    pool.save_state(tmp_path)
    other = build(transport="in_process", num_workers=1)
    with pytest.raises(ConfigError, match="continue with"):
        other.load_state(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["in_process", "shared_memory"])
@pytest.mark.parametrize("kind", ["truncated", "lacks a tensor"])
def test_a_state_that_cannot_be_read_is_refused_by_its_name(build, tmp_path, transport, kind):
    pool = build(transport=transport)
    pool.start()
    pool.save_state(tmp_path)
    file = tmp_path / "worker_1.safetensors"
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
        tensors = load_file(file)
        del tensors["result.reward"]
        save_file(tensors, file, metadata)
    with pytest.raises(ConfigError, match=rf"^{file}: (cannot be read|lacks 'result\.reward')"):
        pool.load_state(tmp_path)


def test_a_lost_step_is_counted(build):
    pool = build(transport="in_process")
    pool.start()
    step(pool, 0)
    pool.tensors["sequence"][1, 1] = 0
    pool.wait(0)
    assert pool.slot_mismatches == 1


def test_environments_can_change_their_state_outside_inference_mode(build):
    pool = build(transport="in_process")
    with torch.inference_mode():
        pool.start()
        step(pool, 0, torch.zeros(5, 3))
    pool.start()
    step(pool, 0, torch.zeros(5, 3))


@pytest.mark.slow
def test_a_killed_worker_is_reported_while_the_other_still_works(build):
    pool = build({"step_s": 600.0, "fault": "kill", "fault_step": 1, "fault_env": 4})
    pool.start()
    pool.send(0, 0)
    with pytest.raises(WorkerDied) as caught:
        pool.wait(0, timeout_s=TIMEOUT_S)  # the other one needs longer
    assert (caught.value.index, caught.value.returncode) == (1, -signal.SIGKILL)


@pytest.mark.slow
def test_sending_to_a_worker_that_has_been_killed_fails(build):
    pool = build()
    pool.start()
    assert len(pids(pool)) == 2
    for pid in pids(pool):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied) as caught:
        step(pool, 0)
    assert caught.value.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_failing_worker_s_last_words_are_its_traceback(build, tmp_path):
    pool = build({"fault": "raise", "fault_step": 2, "fault_env": 1})
    pool.start()
    step(pool, 0)
    with pytest.raises(WorkerDied, match="fault on request at step 2") as caught:
        step(pool, 1)
    assert caught.value.index == 0
    assert caught.value.stderr_tail[-1].endswith("FaultError: fault on request at step 2")
    assert any(line.startswith("Traceback") for line in caught.value.stderr_tail)
    pool.close()
    log = (tmp_path / "logs" / "worker_0.log").read_text()
    assert "FaultError: fault on request at step 2" in log


@pytest.mark.slow
def test_an_exit_without_a_word_is_reported(build):
    pool = build({"fault": "exit", "fault_step": 1, "fault_env": 1}, log_dir=None)
    pool.start()
    with pytest.raises(WorkerDied, match=r"exit code 7.*\n\(nothing\)"):
        step(pool, 0)


@pytest.mark.slow
def test_a_hung_worker_is_reported_and_ended(build, tmp_path):
    pool = build({"fault": "hang", "fault_step": 2, "fault_env": 4}, timeout_s=0.5)
    pool.start()
    step(pool, 0)
    pool.send(1, 0)
    wait_until(lambda: pool.tensors["sequence"][2, 0] == 2, "the step of the other one")
    with pytest.raises(WorkerTimeout, match=r"workers \[1\] .* 0\.5 s.*worker_1\.log"):
        pool.wait(1)
    with pytest.raises(RuntimeError, match="busy"):
        pool.save_state(tmp_path / "unused")
    assert not [*(tmp_path / "unused").iterdir()]
    assert all(map(is_alive, pids(pool)))


@pytest.mark.slow
def test_workers_that_build_other_environments_are_refused(build):
    pool = build({"fault": "schema", "fault_env": 0})
    with pytest.raises(WorkerDied, match=f"the run has {pool.layout.schema_hash}"):
        pool.start()


def test_an_interpreter_that_is_none_is_refused(build):
    with pytest.raises(ConfigError, match="'/no/such/python'"):
        build(python="/no/such/python")


def test_an_interpreter_without_our_packages_tells_what_it_lacks(build, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named torch' >&2; exit 1\n")
    python.chmod(0o755)
    pool = build(python=str(python))
    with pytest.raises(WorkerDied, match="No module named torch"):
        pool.start()


@pytest.mark.slow
def test_a_worker_of_another_interpreter_gives_the_same_bytes(build, other_python):
    pools = [build(python=other_python), build(transport="in_process")]
    for pool in pools:
        pool.start()
    runs = [list(rollouts(pool, 2)) for pool in pools]
    assert all(same(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.slow
def test_workers_can_be_started_by_hand(build):
    pool = build(spawn=False)
    command = [sys.executable, "-m", "dexgrasp_sim.worker", "--run-id", pool.run_id]
    workers = [subprocess.Popen([*command, "--index", str(index)]) for index in range(2)]
    pool.start()
    assert len(list(rollouts(pool, 1))) == 1
    pool.close()
    assert [worker.wait(TIMEOUT_S) for worker in workers] == [0, 0]


def test_workers_that_never_come_are_waited_for_no_longer_than_said(build):
    pool = build(spawn=False, start_timeout_s=0.2)
    with pytest.raises(WorkerTimeout, match=f"by hand: .* -m .*{pool.run_id} --index 0"):
        pool.start()


def test_a_worker_of_another_schema_is_refused_and_told_why(build):
    pool = build(spawn=False, num_workers=1)
    channel = connect(socket_path(pool.run_id, 0))
    channel.send(Message(MessageType.HELLO, payload={"schema_hash": "0123456789abcdef"}))
    text = f"0123456789abcdef, this run has {pool.layout.schema_hash}"
    with pytest.raises(ProtocolError, match=text):
        pool.start()
    with pytest.raises(ProtocolError, match=text):
        channel.expect(MessageType.WELCOME, TIMEOUT_S)
    channel.close()


def test_a_worker_of_another_protocol_version_is_refused(build):
    pool = build(spawn=False, num_workers=1)
    channel = connect(socket_path(pool.run_id, 0))
    channel._socket.sendall(HEADER.pack(b"DXGR", 1, MessageType.HELLO, 0, 0, 0, 0))
    with pytest.raises(ProtocolError, match="protocol version 1, this one 4"):
        pool.start()
    channel.close()


def test_too_little_shared_memory_is_said_before_anything_starts(build, run_id, monkeypatch):
    usage = SimpleNamespace(free=4096)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"0\.0 MiB free"):
        build()
    assert run_id not in "".join(live_runs())


def test_a_wrong_config_is_refused_before_anything_starts(build):
    with pytest.raises(ConfigError, match="observation groups"):
        build(groups=("depth", "touch"))
    with pytest.raises(ValueError, match="cannot be split"):
        build(num_workers=6)


@pytest.mark.slow
def test_closing_twice_leaves_the_tensors_that_are_held(build):
    pool = build()
    pool.start()
    depth = pool.tensors["depth"]
    pool.close()
    pool.close()
    assert not run_folder(pool.run_id).exists()
    assert torch.equal(depth[0, 4], expected_observation(pool.observation_specs[0], SEED, 4, 0))
    with pytest.raises(RuntimeError, match="closed"):
        pool.start()


@pytest.mark.slow
def test_using_a_pool_out_of_turn_is_refused(build):
    pool = build(num_workers=1)
    with pytest.raises(RuntimeError, match="start"):
        pool.send(0, 0)
    pool.start()
    pool.send(0, 0)
    with pytest.raises(RuntimeError, match="busy"):
        pool.send(0, 0)
    pool.wait(0)


@pytest.mark.slow
def test_an_observer_watches_a_running_pool(build):
    pool = build()
    pool.start()
    observer = RunObserver(pool.run_id)
    observer.watch(4)
    step(pool, 0)
    step(pool, 1)  # the second step's answer comes after the first one's report
    view = observer.view()
    assert view is not None
    assert view.values["joint_position"].tolist() == [4.0] * 23
    observer.close()
    step(pool, 2)
