"""`bench wide`: its arithmetic by hand, and a tiny run."""

import argparse

import pytest
import torch

from benchmarks import CHECKOUT, wide
from benchmarks.trainings import dexgrasp


def test_minutes_are_those_of_rollouts_updates_and_evaluations():
    records = [
        {"run/env_steps": 600, "run/env_steps_per_s": 100.0},  # 6 s
        {"run/env_steps": 1200, "run/env_steps_per_s": 50.0, "time/evaluation": 42.0},  # 12 s
    ]
    assert wide.minutes_of(records) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_run_is_measured_on_both_sets_and_with_swapped_images_and_drawn(tmp_path):
    changes = (
        "simulators.num_envs=8", "simulators.num_workers=1", "simulators.transport=in_process",
        "training.horizon=8", "training.iterations=2", "training.evaluation_episodes=4",
        "training.update_threads=1", "ppo.minibatches=2", "task.episode_s=0.6",
    )  # fmt: skip
    options = [part for text in changes for part in ("--set", text)]
    preset = str(CHECKOUT / "config" / "smoke.yaml")
    training = dexgrasp("train", preset, "--runs", str(tmp_path), *options)
    parser = argparse.ArgumentParser()
    wide.add_arguments(parser)
    picture = tmp_path / "pictures" / "curves.png"
    words = ["--episodes", "4", "--threads", "1", "--figure", str(picture)]
    threads = torch.get_num_threads()
    try:
        settings, figures = wide.measure(
            parser.parse_args([training.result["run_dir"], *words, "--machine", "idle"])
        )
    finally:
        torch.set_num_threads(threads)
    assert (settings["difficulty"], settings["machine"]) == (1.0, "idle")
    policy = figures["policies"]["smoke"]
    assert policy.keys() == {"train", "held_out", "swapped_images", "training"}
    assert policy["train"]["episodes"] == 4 and policy["train"]["success_rate"] == 0.0
    assert policy["training"]["env_steps"] == training.result["env_steps"] == 3 * 8 * 8
    assert policy["training"]["curve"]["evaluation_success"][-1] is not None
    assert picture.stat().st_size > 10_000
