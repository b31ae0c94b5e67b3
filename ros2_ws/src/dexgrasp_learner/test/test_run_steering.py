"""Whole training runs steered from another thread, and how they outlive what goes wrong."""

import math
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from dexgrasp_learner.algorithms.guards import NonFiniteLoss
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.pool.worker_group import WorkerTimeout
from dexgrasp_learner.run.assembly import build_ppo
from dexgrasp_learner.run.control import RunControl, RunState
from dexgrasp_learner.run.runner import Runner
from dexgrasp_learner.storage.checkpoint import load_actor, load_state
from dexgrasp_learner.storage.checkpoint_files import find_checkpoint
from dexgrasp_sim.transport.shared_memory import run_folder
from test_support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restore_torch")]

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
TIMEOUT_S = 120.0
IN_PROCESS = "simulators.transport=in_process"
TINY = [
    "task.episode_s=1.0",
    "simulators.num_envs=8",
    "network.actor_groups=[proprio, state]",
    "network.critic_groups=[critic]",
    "training.horizon=2",
    "training.checkpoint_every=1000000",
]
ENDLESS = [*TINY, "training.iterations=1000000"]


def make_runner(folder, *overrides, control=None):
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    config = load_run_config(SMOKE, [*overrides])
    return Runner(config, folder, build_ppo(config), control, show_progress=False)


def resume(folder, *overrides):
    runner = make_runner(folder, *overrides)
    runner.resume(folder)
    return runner.run()


class Background:
    """A run in another thread, steered from the test's."""

    def __init__(self, folder, *overrides, pause=False):
        self.control = RunControl()
        if pause:
            self.control.pause()
        self.runner = make_runner(folder, *overrides, control=self.control)
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            self.result = self.runner.run()
        except Exception as error:
            self.result = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.control.stop()
        self.join()

    def join(self):
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        return self.result

    def wait_for(self, condition):
        def holds():
            is_alive = self._thread.is_alive()
            if condition(self.control.status):
                return True
            assert is_alive, self.result
            return False

        wait_until(holds, lambda: f"a status other than {self.control.status}")


def test_a_run_is_paused_saved_resumed_and_stopped_from_outside(tmp_path):
    with Background(tmp_path, *ENDLESS, IN_PROCESS, pause=True) as run:
        run.wait_for(lambda status: status.state is RunState.PAUSED)
        path = Path(run.control.save(TIMEOUT_S))
        assert path.name == "iteration_000000"
        assert run.control.status.iteration == 0, "it has not gone on"
        run.control.resume()
        run.wait_for(lambda status: status.iteration >= 2)
        assert run.control.status.state is RunState.RUNNING
        path = Path(run.control.save(TIMEOUT_S))
        assert find_checkpoint(path) == path and load_state(path)["iteration"] >= 2
        run.control.pause()
        run.wait_for(lambda status: status.state is RunState.PAUSED)
        iteration = run.control.status.iteration
        path = run.control.save(TIMEOUT_S)
        assert path == run.control.save(TIMEOUT_S), "once is enough"
        assert load_state(Path(path))["iteration"] == run.control.status.iteration == iteration
        run.control.stop()
        summary = run.join()
    assert summary.iterations == iteration
    status = run.control.status
    assert (status.state, status.workers_alive, status.message) == (RunState.FINISHED, 0, "")
    assert status.checkpoint == summary.checkpoint == str(path)


def test_a_runner_that_cannot_be_made_leaves_no_simulators(tmp_path):
    config = load_run_config(SMOKE, TINY)
    algorithm = build_ppo(config)
    algorithm.memory_sizes = {"actor": -1}  # as where a device has no room for the rollout
    run_id = f"unmade_{os.getpid()}"
    with pytest.raises(RuntimeError, match="must be non-negative"):
        Runner(config, tmp_path, algorithm, show_progress=False, run_id=run_id)
    assert not run_folder(run_id).exists()
    assert not any(run_id in command for command in command_lines())


def command_lines():
    """Of all processes on this machine; "" of one that has ended meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text()
        except OSError:
            yield ""


def test_after_a_failure_a_run_goes_on_with_new_episodes(tmp_path):
    with Background(tmp_path, *ENDLESS, IN_PROCESS) as run:
        run.wait_for(lambda status: status.iteration >= 1)
        while run.result is None:
            with torch.inference_mode():  # as the memory itself was made
                run.runner.rollout.memory["critic"].fill_(math.nan)
        assert isinstance(run.join(), NonFiniteLoss)
    failed_at = run.control.status.iteration
    assert load_state(find_checkpoint(tmp_path))["iteration"] == failed_at
    more = f"training.iterations={failed_at + 2}"
    assert resume(tmp_path, *TINY, IN_PROCESS, more).iterations == failed_at + 2
    actor, _, _ = load_actor(tmp_path)
    assert all(parameter.isfinite().all() for parameter in actor.parameters())


def test_a_hung_simulator_ends_the_run_with_a_checkpoint_to_go_on_from(tmp_path):
    overrides = ["simulators.num_workers=1", "simulators.timeout_s=5.0", "simulators.restarts=0"]
    with Background(tmp_path, *ENDLESS, *overrides) as run:
        run.wait_for(lambda status: status.iteration >= 1)
        (worker,) = run.runner.pool._workers.workers  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGSTOP)
        assert isinstance(run.join(), WorkerTimeout)
    status = run.control.status
    assert status.state is RunState.FAILED and "workers [0]" in status.message
    assert load_state(Path(status.checkpoint))["iteration"] == status.iteration
    assert not Path(f"/proc/{worker.pid}").exists()
    more = f"training.iterations={status.iteration + 1}"
    summary = resume(tmp_path, *TINY, IN_PROCESS, more, "simulators.num_workers=1")
    assert summary.iterations == status.iteration + 1


def set_file_limit(limit_bytes):
    """The kernel then refuses to let a file of this process grow further; returns the old one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    return soft


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, capsys):
    with Background(tmp_path, *ENDLESS, IN_PROCESS) as run:
        run.wait_for(lambda status: status.iteration >= 1)
        good = run.control.save(TIMEOUT_S)
        limit = set_file_limit(10_000)
        try:
            run.wait_for(lambda status: status.iteration > load_state(Path(good))["iteration"])
            assert run.control.save(timeout_s=0.01) == ""
            run.wait_for(lambda status: "no checkpoint at iteration" in status.message)
            failed_at = run.control.status.iteration
            run.wait_for(lambda status: status.iteration > failed_at)
            assert run.control.status.state is RunState.RUNNING
            assert run.control.status.checkpoint == good
            assert str(find_checkpoint(tmp_path)) == good
        finally:
            set_file_limit(limit)
        later = run.control.save(TIMEOUT_S)
        assert load_state(Path(later))["iteration"] > failed_at
        assert run.control.status.message == ""
    assert "File too large; free some space" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_even_the_last_checkpoint_cannot_be_written_the_run_has_failed(tmp_path, capsys):
    control = RunControl()
    runner = make_runner(tmp_path, *TINY, IN_PROCESS, "training.iterations=30", control=control)
    limit = set_file_limit(5_000)
    try:
        with pytest.raises(OSError, match="File too large"):
            runner.run()
    finally:
        set_file_limit(limit)
    assert control.status.state is RunState.FAILED
    assert (control.status.iteration, control.status.checkpoint) == (30, "")
    assert "the figures of iteration 30 are lost" in capsys.readouterr().err
