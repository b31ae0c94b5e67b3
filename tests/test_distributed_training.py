"""`dexgrasp train --distributed` under torchrun: the loss of a rank, a cut network, resuming."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dexgrasp_learner.storage.checkpoint import load_state
from dexgrasp_learner.storage.checkpoint_files import find_checkpoint
from dexgrasp_sim.transport.shared_memory import run_folder
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

SMOKE = Path(__file__).parents[1] / "config" / "smoke.yaml"
TIMEOUT_S = 120.0
LOST_AFTER_S = 20
SETTINGS = [
    "simulators.num_envs=8",
    "simulators.num_workers=1",
    "training.horizon=2",
    "training.checkpoint_every=1000000",
    "network.actor_groups=[proprio, state]",
    "network.critic_groups=[critic]",
    "adr.enabled=true",
]
ENDLESS = ["training.iterations=1000000"]
IN_PROCESS = ["simulators.transport=in_process"]


class Ranks:
    """Ranks under one torchrun; their processes end with the test."""

    def __init__(self, folder, name, launcher, arguments, prefix=(), **environment):
        self.log = folder / f"{name}.log"
        python = [sys.executable, "-m", "torch.distributed.run"]
        command = [*python, *launcher, "-m", "dexgrasp_deploy.commands.cli", "train", *arguments]
        command += ["--distributed", "--peer-timeout-s", str(LOST_AFTER_S)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )

    @property
    def output(self):
        return self.log.read_text()

    def wait(self):
        return self.process.wait(TIMEOUT_S)

    def kill(self):
        for pid in [*self.pids(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(TIMEOUT_S)

    def pids(self):
        """Process id of each rank, in their order."""
        return sorted(children(self.process.pid), key=rank_of)


def children(parent):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def rank_of(pid):
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((int(word[5:]) for word in words if word.startswith(b"RANK=")), -1)


def options(*groups):
    return [f"--set={setting}" for group in (SETTINGS, *groups) for setting in group]


def exists(pid):
    return Path(f"/proc/{pid}").exists()


def has_iterated_twice(runs, ranks):
    """Whether rank 0 has written two records."""
    assert ranks.process.poll() is None, ranks.output
    return sum(len(path.read_text().splitlines()) for path in runs.glob("*/metrics.jsonl")) >= 2


def iteration_in(folder):
    return load_state(find_checkpoint(folder))["iteration"]


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*arguments, **environment):
        started.append(Ranks(tmp_path, f"torchrun_{len(started)}", *arguments, **environment))
        return started[-1]

    yield start
    for ranks in started:
        ranks.kill()


def test_a_killed_rank_ends_the_run_with_a_checkpoint_and_all_resume_from_it(start, tmp_path):
    runs = tmp_path / "runs"
    launcher = ["--standalone", "--nproc-per-node=2"]
    ranks = start(launcher, [str(SMOKE), f"--runs={runs}", *options(ENDLESS)])
    wait_until(lambda: has_iterated_twice(runs, ranks), "two iterations")
    learners = ranks.pids()
    workers = [worker for learner in learners for worker in children(learner)]
    ids = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in workers]
    run_ids = [words[words.index("--run-id") + 1] for words in ids]
    assert len(set(run_ids)) == 2
    os.kill(learners[1], signal.SIGKILL)
    assert ranks.wait() == 1
    lost = rf"dexgrasp: rank 0 lost rank 1 while .* \(time-out {LOST_AFTER_S} s\): .*--resume\n"
    assert re.search(lost, ranks.output)
    wait_until(lambda: not any(map(exists, (*learners, *workers))), "the processes to end")
    assert not any(run_folder(run_id).exists() for run_id in run_ids)

    (folder,) = runs.iterdir()
    saved = iteration_in(folder)
    assert saved >= 2
    last = f"--set=training.iterations={saved + 2}"
    resumed = start(launcher, ["--resume", str(folder), "--json", last, *options(IN_PROCESS)])
    assert resumed.wait() == 0
    assert iteration_in(folder) == iteration_in(folder / "rank_1") == saved + 2
    assert load_state(folder / "rank_1" / "resumed_from")["iteration"] == saved
    summary = json.loads(resumed.output.splitlines()[-1])
    assert summary["env_steps"] == (1 + saved + 2) * 2 * 2 * 8
    first, second = (
        load_file(find_checkpoint(path) / "actor.safetensors")
        for path in (folder, folder / "rank_1")
    )
    assert all(torch.equal(second[name], weight) for name, weight in first.items())
    states = [load_state(find_checkpoint(path)) for path in (folder, folder / "rank_1")]
    assert states[0] == states[1], "episodes, difficulty and steps are those of all ranks"


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between: (name, interface, address) of each."""
    names = [f"dexgrasp{os.getpid()}{end}" for end in "ab"]
    cable = [f"dg{os.getpid()}{end}" for end in "ab"]
    addresses = ["10.77.0.1", "10.77.0.2"]
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add {cable[0]} netns {names[0]} type veth peer {cable[1]}"]
    commands[-1] += f" netns {names[1]}"
    for name, end, address in zip(names, cable, addresses, strict=True):
        commands += [f"-n {name} address add {address}/24 dev {end}"]
        commands += [f"-n {name} link set {end} up", f"-n {name} link set lo up"]
    try:
        for command in commands:
            done = ip(command)
            if done.returncode:
                pytest.skip(f"no network namespaces here: ip {command}: {done.stderr.strip()}")
        yield list(zip(names, cable, addresses, strict=True))
    finally:
        for name in names:
            ip(f"netns delete {name}")


def ip(command):
    try:
        return subprocess.run(["ip", *command.split()], capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "ip is not installed")


LEARNER = """
import sys
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_group import WorkerTimeout
from dexgrasp_learner.pool.worker_connection import WorkerDied
simulators = SimulatorsConfig(num_envs=4, num_workers=1, transport="remote", listen=sys.argv[1],
                              timeout_s=3.0, restarts=0)
pool = make_pool(PoolSpec("synthetic", {}, ("state",), horizon=1, simulators=simulators))
pool.start()
try:
    for step in range(1_000_000):
        pool.send(0, policy_version=step)
        pool.wait(0)
        pool.roll_over()
        if step == 10:
            print("ready", flush=True)
except (WorkerDied, WorkerTimeout) as error:  # the first one if cut in the middle of a slot
    print(error, flush=True)
finally:
    pool.close()
"""


def test_a_cut_network_ends_a_learner_and_its_remote_worker(hosts, monkeypatch):
    address = f"{hosts[0][2]}:29600"
    command = ("ip", "netns", "exec", hosts[0][0], sys.executable, "-c", LEARNER, address)
    monkeypatch.setenv("DEXGRASP_SECRET", secrets.token_hex(32))
    learner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    command = ("ip", "netns", "exec", hosts[1][0], sys.executable, "-m")
    words = ("dexgrasp_sim.worker", "--learner", address, "--index", "0")
    worker = subprocess.Popen((*command, *words), stderr=subprocess.PIPE, text=True)
    try:
        assert learner.stdout is not None
        assert learner.stdout.readline() == "ready\n"
        ip(f"-n {hosts[1][0]} link set {hosts[1][1]} down")
        output, _ = learner.communicate(timeout=TIMEOUT_S)
        assert f"at {hosts[1][2]}:" in output
        assert "have not answered within 3 s" in output or "connection lost: timed out" in output
        assert learner.returncode == 0
        assert worker.wait(TIMEOUT_S) == 1
    finally:
        for process in (learner, worker):
            process.kill()
            process.communicate(timeout=TIMEOUT_S)


def test_a_cut_network_ends_both_sides_in_time_each_with_a_checkpoint(hosts, start, tmp_path):
    sides = []
    for rank, (name, interface, _) in enumerate(hosts):
        launcher = ["--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1"]
        launcher += [f"--master-addr={hosts[0][2]}", "--master-port=29500"]
        runs = tmp_path / f"host_{rank}"
        config = str(SMOKE) if rank == 0 else "only rank 0 reads it"
        arguments = [config, f"--runs={runs}", *options(ENDLESS, IN_PROCESS)]
        prefix = ("ip", "netns", "exec", name)
        sides.append(start(launcher, arguments, prefix, GLOO_SOCKET_IFNAME=interface))
    runs = tmp_path / "host_0"
    wait_until(lambda: has_iterated_twice(runs, sides[0]), "two iterations")
    ip(f"-n {hosts[1][0]} link set {hosts[1][1]} down")
    for rank, side in enumerate(sides):
        assert side.wait() == 1
        assert f"dexgrasp: rank {rank} lost rank {1 - rank} while" in side.output
        assert f"(time-out {LOST_AFTER_S} s)" in side.output
    (first,) = runs.iterdir()
    second = tmp_path / "host_1" / first.name / "rank_1"
    assert abs(iteration_in(first) - iteration_in(second)) <= 1
