"""The published task as people start it: trained with a worker process and exported."""

import json
from pathlib import Path

import pytest
import torch

from dexgrasp_deploy.commands.cli import main
from dexgrasp_learner.storage.bundle import load_bundle

pytestmark = pytest.mark.slow

PAPER = Path(__file__).parents[1] / "config" / "paper.yaml"
SMALL = {
    "simulators.num_envs": 2,
    "simulators.num_workers": 1,
    "simulators.threads_per_worker": 1,
    "task.objects": "primitives",
    "task.difficulty": 0.5,
    "network.memory_size": 16,
    "network.hidden": "[16]",
    "network.critic_memory_size": 16,
    "network.critic_hidden": "[16]",
    "network.fused_size": 16,
    "ppo.minibatches": 2,
    "ppo.epochs": 1,
    "distillation.minibatches": 2,
    "training.horizon": 2,
    "training.iterations": 1,
    "training.update_threads": 1,
}
"""Few of everything, so that it takes seconds; the task itself is untouched."""


def test_the_published_task_trains_and_gives_a_bundle(tmp_path, capsys):
    threads = torch.get_num_threads()
    options = [f"--set={key}={value}" for key, value in SMALL.items()]
    try:
        assert main(["train", str(PAPER), "--runs", str(tmp_path), "--json", *options]) == 0
        run = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["run_dir"]
        assert main(["export", run, "--out", str(tmp_path / "bundle")]) == 0
    finally:
        torch.set_num_threads(threads)
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.action_names[:3] == ("palm_x", "palm_y", "palm_z")
    assert len(manifest.action_names) == 11
    assert manifest.image is not None and manifest.image.shape == (120, 160)
    task = manifest.task
    # in the middle of the schedule from 10 to 20
    assert task.difficulty == 0.5 and task.action.damping_per_s.at(task.difficulty) == 15.0
