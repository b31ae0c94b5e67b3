"""The task in every physics backend: the scripted teacher, a policy's transfer, a training."""

import json
from pathlib import Path

import pytest

from dexgrasp_deploy.commands.cli import main
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.evaluation.episodes import evaluate, evaluate_actor, scripted_policy
from dexgrasp_learner.run.assembly import fresh_actor
from dexgrasp_sim.config import replace
from dexgrasp_sim.physics.backends import BACKENDS
from test_support.backends import device_under_test

CONFIGS = Path(__file__).parents[1] / "config"
REFERENCE = "mujoco"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(params=[name for name in BACKENDS if name != REFERENCE])
def other(request):
    """Name and device of a backend to compare with the reference."""
    return request.param, device_under_test(request.param)


def in_backend(config, name):
    return replace(config.task, physics=replace(config.task.physics, backend=name))


def test_the_scripted_teacher_succeeds_as_often(other):
    name, device = other
    config = load_run_config(CONFIGS / "laptop_depth.yaml")
    rates = [
        evaluate(backend, scripted_policy, in_backend(config, backend), (), 9, 1, device=where)
        for backend, where in ((REFERENCE, "cpu"), (name, device))
    ]
    assert rates[0].success_rate >= 0.8
    assert abs(rates[1].success_rate - rates[0].success_rate) < 0.12  # one of nine
    assert rates[1].diverged == 0


def test_a_policy_does_the_same_there(other):
    """An untrained one, over the first second: it sees the same images and moves as far."""
    name, device = other
    config = load_run_config(CONFIGS / "laptop_depth.yaml", ["task.episode_s=1.0"])
    actor = fresh_actor(config)
    returns = [
        evaluate_actor(actor, in_backend(config, backend), 6, 3, device=where).episode_return
        for backend, where in ((REFERENCE, "cpu"), (name, device))
    ]
    assert returns[0] > 0.1
    assert returns[1] == pytest.approx(returns[0], rel=0.02)


def test_a_training_needs_one_more_word(other, tmp_path, monkeypatch, capsys):
    name, device = other
    monkeypatch.chdir(tmp_path)
    words = [
        f"task.physics.backend={name}",
        f"simulators.device={device}",
        "simulators.num_envs=4",
    ]
    words += ["training.iterations=2", "simulators.num_workers=1", "training.horizon=4"]
    sets = [part for word in words for part in ("--set", word)]
    assert main(["train", str(CONFIGS / "smoke.yaml"), *sets, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["iterations"] == 2 and summary["env_steps"] == (1 + 2) * 4 * 4
