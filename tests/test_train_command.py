"""`dexgrasp train` as people use it: real processes, signals, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dexgrasp_deploy.commands.cli import main
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.storage.checkpoint import load_actor, load_state
from dexgrasp_learner.storage.checkpoint_files import find_checkpoint
from dexgrasp_sim.transport.shared_memory import run_folder
from test_support.waiting import wait_until

CLI = (sys.executable, "-m", "dexgrasp_deploy.commands.cli")
SMOKE = Path(__file__).parents[1] / "config" / "smoke.yaml"
TIMEOUT_S = 120.0
ENDLESS = [
    "training.iterations=1000000",
    "simulators.num_envs=8",
    "training.horizon=2",
    "network.actor_groups=[proprio, state]",
    "network.critic_groups=[critic]",
]


def command(runs, *overrides, config=SMOKE):
    options = [f"--set={override}" for override in overrides]
    return ["train", str(config), "--runs", str(runs), "--json", *options]


def in_process(arguments, capsys):
    """Runs a command here; returns exit code, stdout and stderr."""
    code = main(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def stat(pid):
    """State and parent of a process, None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def is_alive(pid):
    found = stat(pid)
    return found is not None and found[0] != "Z"


def workers_of(learner_pid):
    """Process id of each worker of a learner, and the id of its run."""
    workers = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "dexgrasp_sim.worker" in words and (stat(folder.name) or (0, 0))[1] == learner_pid:
            workers[int(words[words.index("--index") + 1])] = int(folder.name)
            run_id = words[words.index("--run-id") + 1]
    return (workers, run_id) if workers else ({}, "")


class Learner:
    """`dexgrasp train` in a process group of its own, observed until it has trained a little."""

    def __init__(self, runs, num_workers, *overrides):
        self.runs = runs
        self.num_workers = num_workers
        overrides = [*ENDLESS, f"simulators.num_workers={num_workers}", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *command(runs, *overrides)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.workers, self.run_id = {}, ""

    @property
    def folder(self):
        (folder,) = self.runs.iterdir()
        return folder

    def wait_until_it_trains(self):
        wait_until(self._has_saved, "a checkpoint")
        self.workers, self.run_id = workers_of(self.process.pid)
        assert sorted(self.workers) == [*range(self.num_workers)]
        assert run_folder(self.run_id).is_dir()
        return self

    def _has_saved(self):
        self._assert_that_it_runs()
        return list(self.runs.glob("*/checkpoints/latest"))

    def _assert_that_it_runs(self):
        assert self.process.poll() is None, self.process.communicate()

    def wait_for_another(self, pid):
        """Waits until another worker has taken the place of the lost worker 0 and trained."""
        wait_until(lambda: self._worker_0() not in (None, pid), "another worker")
        before = self._iterations()
        wait_until(lambda: self._iterations() >= before + 2, "two iterations with it")

    def _worker_0(self):
        self._assert_that_it_runs()
        self.workers, _ = workers_of(self.process.pid)
        return self.workers.get(0)

    def _iterations(self):
        self._assert_that_it_runs()
        return len((self.folder / "metrics.jsonl").read_text().splitlines())

    def end(self):
        """Waits for the learner's end; returns exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, out, err

    def has_left_nothing(self):
        return not (run_folder(self.run_id).exists() or any(map(is_alive, self.workers.values())))


@pytest.fixture
def start(tmp_path):
    """Starts learners; kills what a failed test leaves of them."""
    learners = []

    def start(name, num_workers, *overrides):
        learners.append(Learner(tmp_path / name, num_workers, *overrides))
        return learners[-1]

    yield start
    for learner in learners:
        for pid in [learner.process.pid, *workers_of(learner.process.pid)[0].values()]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        learner.process.communicate()


@pytest.mark.slow
def test_the_smoke_run_ends_with_one_json_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *command(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = result.stdout.splitlines()
    summary = json.loads(line)
    assert summary["iterations"] == 10 and summary["env_steps"] == (1 + 10) * 8 * 16
    assert (summary["workers"], summary["transport"]) == (2, "shared_memory")
    assert summary["slot_mismatches"] == 0
    folder = Path(summary["run_dir"])
    assert folder.parent == tmp_path / "runs"
    assert load_run_config(folder / "config.yaml") == load_run_config(SMOKE)
    assert find_checkpoint(folder) == Path(summary["checkpoint"])
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 10
    assert json.loads((folder / "run.json").read_text())["torch"]
    assert f"figures: {folder / 'metrics.jsonl'}" in result.stderr.splitlines()[0]
    assert f"tensorboard --logdir {folder}" in result.stderr and (folder / "tensorboard").is_dir()


@pytest.mark.slow
def test_a_wrong_value_is_one_line_and_exit_code_2(tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "dexgrasp_deploy.commands.cli",
            *command(tmp_path, "training.horizon=0"),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(
        r"dexgrasp train: .*`training\.horizon` = 0: .* greater than 0\n", result.stderr
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.horizn=2"], ["`training.horizn`", "unknown key"]),
        (["seed=many"], ["`seed` = 'many'", "integer"]),
        (["simulators.num_workers=17"], ["16 environments", "17 workers"]),
        (["ppo.minibatches=99"], ["ppo.minibatches", "99", "num_envs = 16"]),
        (["network.actor_groups=[proprio, touch]"], ["'touch'", "stereo_rgb"]),
        (["network.auxiliary_group=depth"], ["'depth'", "flat group"]),
        (["simulators.python=/no/such/python"], ["'/no/such/python'", "interpreter"]),
        (["training.horizon=100000000"], ["/dev/shm", "MiB free", "this run needs"]),
        (["horizon"], ["--set horizon", "key.subkey=value"]),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, capsys, overrides, words):
    code, out, err = in_process(command(tmp_path / "runs", *overrides), capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(word in err for word in words), err


def test_files_that_are_not_there_are_named(tmp_path, capsys):
    code, _, err = in_process(command(tmp_path, config=tmp_path / "none.yaml"), capsys)
    assert code == 2 and f"{tmp_path}/none.yaml: cannot be read" in err
    code, _, err = in_process(["train", "--resume", str(tmp_path)], capsys)
    assert code == 2 and f"{tmp_path}/config.yaml: cannot be read" in err
    code, _, err = in_process(["train"], capsys)
    assert code == 2 and "nothing to train" in err
    code, _, err = in_process(["train", str(SMOKE), "--resume", str(tmp_path)], capsys)
    assert code == 2 and "leave the file out" in err


def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(
        f"base: {SMOKE}\nsimulators: {{transport: in_process}}\n"
    )
    code, _, err = in_process(["train", "--resume", str(tmp_path)], capsys)
    assert code == 2 and f"{tmp_path}: no checkpoint there" in err


def test_a_file_in_place_of_the_folder_of_runs_is_said(tmp_path, capsys):
    (tmp_path / "runs").write_text("")
    code, _, err = in_process(command(tmp_path / "runs"), capsys)
    assert code == 2 and "--runs" in err


@pytest.mark.slow
def test_ctrl_c_ends_in_order_whoever_gets_it(start):
    """A terminal signals the whole process group, a process manager the learner alone."""
    alone, group = start("alone", 1), start("group", 2)
    for learner in (alone, group):
        learner.wait_until_it_trains()
    os.kill(alone.process.pid, signal.SIGINT)
    os.killpg(group.process.pid, signal.SIGINT)
    for learner in (alone, group):
        code, out, err = learner.end()
        assert code == 130, err
        assert "stopping after this iteration" in err and "Traceback" not in err
        summary = json.loads(out)
        assert summary["iterations"] >= 5 and summary["slot_mismatches"] == 0
        checkpoint = Path(summary["checkpoint"])
        assert load_state(checkpoint)["iteration"] == summary["iterations"]
        assert len(list((checkpoint / "simulators").iterdir())) == learner.num_workers
        assert learner.has_left_nothing()


@pytest.mark.slow
def test_when_a_worker_or_the_learner_is_killed_nothing_is_left_but_a_checkpoint(start, capsys):
    bereft = start("bereft", 2, "simulators.restarts=0")
    killed = start("killed", 1)
    for learner in (bereft, killed):
        learner.wait_until_it_trains()

    os.kill(bereft.workers[1], signal.SIGKILL)
    code, out, err = bereft.end()
    assert (code, out) == (1, "")
    assert "simulator worker 1 died (exit code -9); it said last:" in err
    checkpoint = Path(re.findall(r"^checkpoint: (.*)$", err, re.MULTILINE)[0])
    assert checkpoint == find_checkpoint(bereft.folder)
    load_actor(checkpoint)
    assert "Traceback" not in err
    assert bereft.has_left_nothing()

    lost = killed.workers[0]
    os.kill(lost, signal.SIGKILL)
    killed.wait_for_another(lost)
    killed.process.kill()
    code, _, err = killed.end()
    assert code == -signal.SIGKILL
    assert "worker 0 died (exit code -9); replaced" in err and "Traceback" not in err
    wait_until(killed.has_left_nothing, "its workers and its shared memory to go")
    load_actor(killed.folder)
    done = load_state(find_checkpoint(killed.folder))["iteration"]
    more = ["--set", f"training.iterations={done + 1}"]
    code, out, err = in_process(["train", "--resume", str(killed.folder), "--json", *more], capsys)
    assert code == 0, err
    assert json.loads(out)["iterations"] == done + 1


@pytest.mark.slow
def test_a_run_folder_has_one_owner_until_its_process_is_gone(start, capsys):
    learner = start("owned", 1).wait_until_it_trains()
    folder = learner.folder
    before = load_run_config(folder / "config.yaml")
    teacher = ["--teacher", str(folder)]
    for words in (["train"], ["distill", *teacher]):
        arguments = [*words, "--resume", str(folder), "--set", "training.iterations=1"]
        code, out, err = in_process(arguments, capsys)
        assert (code, out) == (2, "")
        assert re.fullmatch(
            rf"dexgrasp {words[0]}: {folder}: process {learner.process.pid} trains in it; .*",
            err.splitlines()[-1],  # what is said of the teacher comes before
        )
    assert load_run_config(folder / "config.yaml") == before
    learner.process.kill()
    learner.end()
    done = load_state(find_checkpoint(folder))["iteration"]
    more = ["--set", f"training.iterations={done + 1}"]
    code, _, err = in_process(["train", "--resume", str(folder), *more], capsys)
    assert code == 0, err
    iterations = [
        json.loads(line)["iteration"] for line in (folder / "metrics.jsonl").open(encoding="utf-8")
    ]
    assert iterations == [*range(1, done + 2)]
    assert learner.has_left_nothing()


@pytest.mark.slow
def test_a_worker_that_fails_says_why(tmp_path, capsys):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no torch here' >&2\nexit 3\n")
    python.chmod(0o755)
    arguments = command(tmp_path / "runs", f"simulators.python={python}")
    code, out, err = in_process(arguments, capsys)
    assert (code, out) == (1, "")
    assert "simulator worker 0 died (exit code 3)" in err
    assert "ModuleNotFoundError: no torch here" in err
