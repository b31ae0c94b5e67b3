"""`dexgrasp view` as people use it, without a browser: what it serves, and what it refuses."""

import argparse
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from dexgrasp_learner.commands import view
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_learner.storage.checkpoint import policy_schema, save_checkpoint
from dexgrasp_sim.config import ConfigError, to_dict
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.observations import GROUPS, observation_spec
from dexgrasp_sim.transport.shared_memory import live_runs, run_folder
from test_support.fake_robot import FakeRobot
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

SMOKE = Path(__file__).parents[1] / "config" / "smoke.yaml"
TIMEOUT_S = 120.0
ENDLESS = (
    "training.iterations=1000000",
    "simulators.num_envs=8",
    "training.horizon=2",
    "network.actor_groups=[proprio, state]",
    "network.critic_groups=[critic]",
)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    view.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.fixture
def trained(tmp_path):
    """A run folder with the checkpoint of a network that has learnt nothing."""
    config = load_run_config(SMOKE)
    specs = {group: observation_spec(config.task, group) for group in GROUPS}
    actor = build_actor(
        config.network,
        specs,
        len(config.task.action_names),
        seed=0,
        view=config.table_view,
    )
    state = {"config": to_dict(config), "schema_hash": policy_schema(actor, config.task)}
    save_checkpoint(tmp_path / "checkpoints", 1, actor, {}, state, lambda folder: None)
    return tmp_path


@pytest.fixture
def start():
    """Starts `dexgrasp` commands and ends those that are left."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, text=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.terminate()
        try:
            process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()


def page_of(process):
    """The line that a viewer prints and the page that it serves."""
    line = process.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert url, line or process.communicate()[1]
    with urllib.request.urlopen(url[0], timeout=TIMEOUT_S) as answer:
        assert answer.status == 200
        return line, answer.read()


def run_of(training):
    """Id of the run whose shared memory says that this process made it; None if there is none."""
    assert training.poll() is None, training.communicate()
    mark = f'"learner_pid": {training.pid},'.encode()
    for run_id in live_runs():
        with suppress(FileNotFoundError), open(run_folder(run_id) / "tensors", "rb") as file:
            if mark in file.read(4096):
                return run_id
    return None


def test_the_page_of_a_checkpoint_is_served_until_ctrl_c(trained, start):
    viewer = start("view", "--policy", trained, "--envs", 2, "--port", 0)
    line, page = page_of(viewer)
    assert line.startswith(str(trained)) and b"<script" in page
    viewer.send_signal(signal.SIGINT)
    shown, errors = viewer.communicate(timeout=TIMEOUT_S)
    assert viewer.returncode == 0
    assert shown == "" and "Traceback" not in errors


def test_a_running_training_is_served_until_it_ends(start, tmp_path):
    options = [f"--set={override}" for override in ENDLESS]
    training = start("train", SMOKE, "--runs", tmp_path, *options)
    run_id = wait_until(lambda: run_of(training), "the run")
    viewer = start("view", "--run", run_id, "--config", SMOKE, "--port", 0, "--env", 1)
    line, _ = page_of(viewer)
    assert line.startswith(run_id)
    training.send_signal(signal.SIGINT)
    training.communicate(timeout=TIMEOUT_S)
    _, errors = viewer.communicate(timeout=TIMEOUT_S)
    assert viewer.returncode == 0
    assert f"run {run_id} has ended" in errors


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["--env", "4"], "--env 4: there are --envs 4"),
        (["--set", "task.control_hz=30"], "changes a value of --config"),
        (["--run", "nobody"], "--run nobody: does not run on this host"),
        (["--policy", "nowhere"], "nowhere"),
        (["--policy", "somewhere", "--config", "some.yaml"], "a checkpoint brings its own"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_arguments_are_config_errors(arguments, needle):
    with pytest.raises(ConfigError, match=re.escape(needle)):
        view.run(parse(*arguments))


def line_with(process, words):
    """The next line on stderr that says something."""
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"the viewer has ended without {words!r}")


def test_a_robot_may_start_later_stop_and_start_again(start):
    """Its page waits meanwhile, and says for what in one line."""
    domain = os.environ["ROS_DOMAIN_ID"]
    viewer = start("view", "--robot", "--domain", domain, "--port", 0)
    line, page = page_of(viewer)
    assert line.startswith("robot: open http") and b"<script" in page
    waits = f"waiting for robot_description and joint_states in ROS domain {domain}\n"
    assert line_with(viewer, "waiting") == waits
    for _ in range(2):
        with FakeRobot(load_robot()):
            shows = f"showing kuka_allegro in ROS domain {domain}\n"
            assert line_with(viewer, "showing") == shows
        line_with(viewer, "waiting")
    viewer.send_signal(signal.SIGINT)
    _, errors = viewer.communicate(timeout=TIMEOUT_S)
    assert viewer.returncode == 0 and "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["--robot", "--run", "some"], "--run some: not with --robot"),
        (["--robot", "--policy", "some"], "--policy some: not with --robot"),
        (["--robot", "--config", "some.yaml"], "--config some.yaml: not with --robot"),
        (["--domain", "0"], "--domain 0: only with --robot"),
        (["--namespace", "left"], "--namespace left: only with --robot"),
    ],
)
def test_a_robot_is_watched_alone(arguments, needle):
    with pytest.raises(ConfigError, match=re.escape(needle)):
        view.run(parse(*arguments))
