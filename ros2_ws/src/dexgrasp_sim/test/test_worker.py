"""The worker process against a learner that is written out here, message by message."""

import os
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.environments import env_specs, make_env
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport.channel import Listener
from dexgrasp_sim.transport.layout import RunLayout, split_envs
from dexgrasp_sim.transport.protocol import HEADER, Message, MessageType, ProtocolError
from dexgrasp_sim.transport.shared_memory import Segment, run_folder, socket_path
from dexgrasp_sim.transport.telemetry import (
    RunObserver,
    WorkerState,
    WorkerTelemetry,
    read_statuses,
)
from dexgrasp_sim.worker.env_slice import EnvSlice, check_state_file, state_path

pytestmark = pytest.mark.slow

CONFIG = {
    "observations": {
        "depth": {"shape": [6, 8], "dtype": "int16"},
        "state": {"shape": [5], "dtype": "float32"},
        "flag": {"shape": [3], "dtype": "bool"},
    },
    "action_dim": 2,
    "episode_length": 2,
}
GROUPS = ("depth", "state", "flag")
SEED = 3
SPECS = env_specs("synthetic", CONFIG, GROUPS)
LAYOUT = RunLayout(SPECS, 4, split_envs(5, 2))
TIMEOUT_S = 60.0


class Learner:
    """A learner of one worker, whose process it starts."""

    def __init__(self, index=1, layout=LAYOUT):
        self.run_id = f"test-{os.getpid()}-{os.urandom(4).hex()}"
        self.segment = Segment.create(self.run_id, layout)
        self.listener = Listener(socket_path(self.run_id, index))
        command = [sys.executable, "-m", "dexgrasp_sim.worker", "--run-id", self.run_id]
        self.process = subprocess.Popen(
            [*command, "--index", str(index)], stderr=subprocess.PIPE, text=True
        )
        self.channel = self.listener.accept(TIMEOUT_S)

    def welcome(self, **config):
        orders = {"kind": "synthetic", "config": {**CONFIG, **config}, "groups": GROUPS}
        orders |= {"seed": SEED, "threads": 1, "spin_us": 0, "env_offset": 0}
        self.hello = self.channel.expect(MessageType.HELLO, TIMEOUT_S)
        self.channel.send(Message(MessageType.WELCOME, payload=orders))
        return self.channel.expect(MessageType.READY, TIMEOUT_S)

    def order(self, kind, slot=0, **payload):
        self.channel.send(Message(kind, slot, policy_version=17, payload=payload or None))
        return self.channel.expect(MessageType.DONE, TIMEOUT_S)

    def ending(self):
        """Exit code and what the worker has written to stderr."""
        _, stderr = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, stderr

    def close(self):
        if self.channel is not None:
            self.channel.close()
        self.listener.close()
        self.process.kill()
        self.process.communicate()
        self.segment.close()


@pytest.fixture
def learner():
    learner = Learner()
    yield learner
    learner.close()
    assert not run_folder(learner.run_id).exists()


def observations_are(tensors, slot, steps, envs):
    return all(
        torch.equal(tensors[spec.name][slot, env], expected_observation(spec, SEED, env, steps))
        for spec in LAYOUT.observation_specs
        for env in envs
    )


def test_a_worker_introduces_itself_fills_its_slice_and_leaves(learner, tmp_path):
    tensors = learner.segment.tensors
    ready = learner.welcome()
    assert learner.hello.payload["index"] == 1
    assert learner.hello.payload["pid"] == learner.process.pid
    assert learner.hello.payload["schema_hash"] == LAYOUT.schema_hash
    assert ready.payload == {"schema_hash": LAYOUT.schema_hash}

    learner.order(MessageType.START)
    assert observations_are(tensors, 0, steps=0, envs=(3, 4))
    assert tensors["terminated"][0].tolist() == [False, False, False, True, True]
    assert not tensors["depth"][0, :3].any(), "the other worker's slice is not touched"

    tensors["actions"][0] = torch.tensor([0.5, 0.0])
    done = learner.order(MessageType.STEP, slot=0)
    assert (done.slot, done.policy_version) == (0, 17)
    assert observations_are(tensors, 1, steps=1, envs=(3, 4))
    assert tensors["reward"][1].tolist() == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert tensors["sequence"][1].tolist() == [0, 1]

    path = state_path(tmp_path, 1)
    learner.order(MessageType.SAVE, path=str(path))
    check_state_file(path, LAYOUT, 1)
    learner.order(MessageType.STEP, slot=1)
    learner.order(MessageType.LOAD, path=str(path))
    assert observations_are(tensors, 0, steps=1, envs=(3, 4))
    assert tensors["reward"][0].tolist() == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert not tensors["terminated"][0].any()

    learner.channel.send(Message(MessageType.STOP))
    assert learner.ending() == (0, "")
    assert read_statuses(learner.segment.telemetry)[1].state == WorkerState.STOPPED


def test_an_observer_sees_status_view_and_images_without_the_learner_s_help(learner):
    learner.welcome()
    learner.order(MessageType.START)
    observer = RunObserver(learner.run_id)
    assert observer.view() is None
    assert observer.observation("depth") is None
    observer.watch(4)
    assert observer.view() is None, "the worker has not stepped since"
    begun_s = time.monotonic()
    for slot in range(3):
        learner.order(MessageType.STEP, slot=slot)
    ended_s = time.monotonic()
    learner.channel.send(Message(MessageType.STOP))
    assert learner.ending()[0] == 0

    view = observer.view()
    assert view is not None
    assert view.env == 4
    assert begun_s <= view.time_s <= ended_s, "the clock is one for all processes"
    assert {name: tuple(value.shape) for name, value in view.values.items()} == {
        spec.name: spec.shape for spec in SPECS.view_specs
    }
    assert all((value == 4.0).all() for value in view.values.values())
    depth = observer.observation("depth")
    assert depth is not None
    assert torch.equal(depth, expected_observation(LAYOUT.observation_specs[0], SEED, 4, 3))
    status = observer.statuses()[1]
    assert (status.pid, status.steps, status.slot) == (learner.process.pid, 3, 3)
    assert status.policy_version == 17
    assert status.episodes == 2, "environment 3 has episodes of 2 steps, environment 4 of 3"
    assert status.simulating_s > 0.0
    assert observer.statuses()[0].state == WorkerState.ABSENT
    with pytest.raises(ValueError, match=r"not in 0\.\.4"):
        observer.watch(5)
    observer.watch(None)
    assert observer.view() is None
    observer.close()


def test_the_end_of_the_learner_ends_a_worker_that_waits(learner):
    learner.welcome()
    learner.order(MessageType.START)
    learner.channel.close()
    returncode, stderr = learner.ending()
    assert returncode == 1
    assert "closed the connection" in stderr or "is gone" in stderr
    assert run_folder(learner.run_id).exists(), "this learner still holds the run"


def test_the_end_of_the_learner_ends_a_worker_that_hangs(learner):
    learner.welcome(fault="hang", fault_step=1, fault_env=4)
    learner.order(MessageType.START)
    learner.channel.send(Message(MessageType.STEP, 0))
    learner.channel.close()
    assert learner.ending()[0] == 1


def test_a_failing_environment_sends_its_traceback(learner):
    learner.welcome(fault="raise", fault_step=1, fault_env=4)
    learner.order(MessageType.START)
    with pytest.raises(ProtocolError, match="fault on request at step 1"):
        learner.order(MessageType.STEP)
    returncode, stderr = learner.ending()
    assert returncode == 1
    assert "FaultError: fault on request at step 1" in stderr


def test_environments_of_another_schema_are_refused_by_the_worker(learner):
    with pytest.raises(ProtocolError, match=f"schema .* the run has {LAYOUT.schema_hash}"):
        learner.welcome(fault="schema", fault_env=4)
    returncode, stderr = learner.ending()
    assert returncode == 2
    assert len(stderr.splitlines()) == 1


def test_another_protocol_version_is_refused_by_the_worker(learner):
    learner.channel.expect(MessageType.HELLO, TIMEOUT_S)
    header = HEADER.pack(b"DXGR", 1, MessageType.WELCOME, 0, 0, 0, 0)
    learner.channel._socket.sendall(header)
    with pytest.raises(ProtocolError, match="protocol version 1, this one 4"):
        learner.channel.expect(MessageType.READY, TIMEOUT_S)
    returncode, stderr = learner.ending()
    assert returncode == 2
    assert len(stderr.splitlines()) == 1 and "protocol version 1, this one 4" in stderr


def test_a_wrong_config_reaches_the_learner_and_ends_the_worker(learner):
    with pytest.raises(ProtocolError, match="unknown key `gravity`"):
        learner.welcome(gravity=9.81)
    returncode, stderr = learner.ending()
    assert returncode == 2
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["no-such-run", "0"], "no run 'no-such-run'"), ([None, "2"], "has workers 0 to 1")],
)
def test_a_worker_started_for_nothing_says_so(learner, arguments, complaint):
    run_id, index = arguments
    command = [sys.executable, "-m", "dexgrasp_sim.worker", "--index", index]
    ended = subprocess.run(
        [*command, "--run-id", run_id or learner.run_id],
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ended.returncode == 2
    assert complaint in ended.stderr
    learner.welcome()


def make_slice(index=0, layout=LAYOUT, clock=time.monotonic):
    """Environments in this process, as a worker holds them."""
    tensors = {b.name: torch.zeros(b.shape, dtype=b.torch_dtype) for b in layout.blocks}
    start, stop = layout.slices[index]
    env = make_env("synthetic", CONFIG, stop - start, SEED, 1, GROUPS, start)
    return EnvSlice(env, layout, tensors, WorkerTelemetry(tensors, index, clock), index), tensors


def test_a_continued_run_gives_the_same_bytes_as_an_uninterrupted_one(tmp_path):
    first, expected = make_slice()
    first.reset()
    for slot in range(3):
        expected["actions"][slot] = 0.1 * slot
        first.step(slot, 0)
        if slot == 0:
            first.save(tmp_path / "worker_0.safetensors")
    second, found = make_slice()
    second.reset()
    second.load(tmp_path / "worker_0.safetensors")
    for slot in range(2):
        found["actions"][slot] = 0.1 * (slot + 1)
        second.step(slot, 0)
    for name in ("depth", "state", "flag", "reward", "terminated", "truncated", "episode"):
        assert torch.equal(found[name][:3], expected[name][1:4]), name


def test_a_state_of_other_environments_is_refused(tmp_path):
    env_slice, _ = make_slice()
    env_slice.reset()
    path = state_path(tmp_path, 0)
    with pytest.raises(ConfigError, match="missing"):
        check_state_file(path, LAYOUT, 0)
    env_slice.save(path)
    assert [*tmp_path.iterdir()] == [path], "no partial file is left"
    assert load_file(path)["env.steps"].item() == 0
    check_state_file(path, LAYOUT, 0)
    other = RunLayout(SPECS, 4, split_envs(7, 2))
    with pytest.raises(ConfigError, match=r"0\.\.3.*0\.\.4"):
        check_state_file(path, other, 0)


def test_a_view_is_written_at_most_thirty_times_per_second():
    now_s = [100.0]
    env_slice, tensors = make_slice(clock=lambda: now_s[0])
    env_slice.reset()
    tensors["telemetry.watched"][0] = 1 + 1
    times = []
    for _ in range(100):
        env_slice.step(0, 0)
        env_slice.report()
        times.append(tensors["telemetry.seconds"][0, -1].item())
        now_s[0] += 0.01
    assert len(set(times)) == 25, "every fourth of steps that are 10 ms apart"
    tensors["telemetry.watched"][0] = 1 + 2
    env_slice.show()
    assert tensors["view.env"][0].item() == 2, "another environment is shown at once"
    assert tensors["view.goal"][0].tolist() == [2.0, 2.0, 2.0]


def test_a_half_written_view_is_not_given_out():
    segment = Segment.create(f"test-{os.getpid()}-{os.urandom(4).hex()}", LAYOUT)
    try:
        observer = RunObserver(segment.run_id)
        observer.watch(3)
        telemetry = WorkerTelemetry(segment.telemetry, 1)
        telemetry.show(3, {spec.name: torch.full(spec.shape, 3.0) for spec in SPECS.view_specs})
        assert observer.view() is not None
        segment.telemetry["telemetry.counters"][1, -1] += 1
        assert observer.view() is None
        observer.close()
    finally:
        segment.close()
