"""The simulation benchmark at a tiny size: its figures, and that its sides do the same."""

import argparse
import os
from pathlib import Path

import pytest
import torch

from benchmarks import scripted, sim
from benchmarks.grasp_tape import grasp_config, grasp_tape
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.vec_env import allocate

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
CONFIG = Path(__file__).parents[1] / "config" / "laptop_depth.yaml"
PAPER = CONFIG.with_name("paper.yaml")


def test_sim_gives_its_figures_and_leaves_the_cores_alone():
    parser = argparse.ArgumentParser()
    sim.add_arguments(parser)
    texts = [
        "--config",
        str(CONFIG),
        "--fabric-config",
        str(PAPER),
        "--envs",
        "2",
        "--repeats",
        "1",
        "--scaling-envs",
        "1",
        "2",
    ]
    cores = os.sched_getaffinity(0)
    settings, figures = sim.measure(parser.parse_args(texts))
    assert os.sched_getaffinity(0) == cores
    assert settings["envs"] == 2
    assert figures["state_ratio"] > 0
    assert figures["depth_64x48_ratio"] > 0
    assert settings["episodes"] == "whole, resets included"
    assert figures["fabric_fraction"] > 0
    assert set(figures["cost_per_env_step_us"]) == {"1", "2"}
    assert {"raw_batch", *sim.SIDES} <= set(figures["steps_per_s"])


def test_the_recorded_targets_are_those_of_the_task():
    """So the engine alone does the same work as the task, until an episode ends."""
    task = replace(grasp_config(CONFIG, 60.0).task, stagger_starts=False)
    targets = sim._joint_targets(task, 2)
    env = make_grasp_env(task, 2, seed=0, threads=1, groups=("proprio",))
    out = allocate(env)
    env.reset(out)
    for action, target in zip(grasp_tape(task)[:20], targets, strict=False):
        env.step(action.expand(2, -1), out)
        torch.testing.assert_close(env.decoder.target, target)
    env.close()


def test_the_scripted_teacher_is_measured_per_start_and_set():
    parser = argparse.ArgumentParser()
    scripted.add_arguments(parser)
    texts = ["--config", str(PAPER), "--objects", "cube_box", "--episodes", "1"]
    _, figures = scripted.measure(parser.parse_args(texts))
    assert set(figures) == {"spawn_center_cube_box", "whole_spawn_cube_box"}
    assert figures["spawn_center_cube_box"]["success_rate"] == 1.0
