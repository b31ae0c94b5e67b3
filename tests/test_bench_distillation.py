"""The comparison of two teachers at a tiny size, and its arithmetic by hand."""

import argparse

import pytest
import torch

from benchmarks import distillation
from dexgrasp_sim.config import ConfigError
from test_support.bundles import write_teachers

torch.set_num_threads(1)


def test_means_and_differences_by_hand():
    """Student's t with two degrees of freedom is 4.303, deviations here are 0.1."""
    mean = distillation._mean([0.7, 0.8, 0.9])
    assert mean["mean"] == 0.8
    assert mean["interval"] == pytest.approx([0.8 - 4.303 * 0.1 / 3**0.5, 0.8 + 0.2484], abs=1e-3)
    difference = distillation._difference([0.7, 0.8, 0.9], [0.6, 0.7, 0.8])
    assert difference["difference"] == pytest.approx(0.1)
    low, high = difference["interval"]  # four degrees of freedom: 2.776, deviation 0.1 * sqrt(2/3)
    assert (low, high) == pytest.approx((0.1 - 0.2267, 0.1 + 0.2267), abs=1e-3)
    assert distillation._mean([0.5]) == {"mean": 0.5, "interval": None}
    assert distillation._difference([0.5], [0.25]) == {"difference": 0.25, "interval": None}


@pytest.mark.slow
def test_both_teachers_teach_and_are_judged(tmp_path):
    threads = torch.get_num_threads()
    write_teachers(tmp_path)
    overrides = [
        "simulators.num_envs=8", "simulators.num_workers=1", "simulators.transport=in_process",
        "training.iterations=1", "training.horizon=3", "training.evaluate_every=null",
        "training.update_threads=1", "distillation.minibatches=2", "task.episode_s=0.6",
    ]  # fmt: skip
    parser = argparse.ArgumentParser()
    distillation.add_arguments(parser)
    words = ["--depth-teacher", str(tmp_path / "depth"), "--episodes", "4", "--seeds", "0", "1"]
    words += ["--state-teacher", str(tmp_path / "state"), "--runs", str(tmp_path / "runs")]
    arguments = parser.parse_args([*words, *(f"--set={text}" for text in overrides)])
    try:
        settings, figures = distillation.measure(arguments)
    finally:
        torch.set_num_threads(threads)
    assert settings["teachers"] == {"depth": "depth", "state": "state"}
    assert settings["config"] == "student_stereo"
    for name in ("depth", "state"):
        student = figures["students"][name]
        assert [run["seed"] for run in student["runs"]] == [0, 1]
        for run in student["runs"]:
            # two rollouts of eight environments, the first only for the normalisation
            assert run["steps"] == 2 * 3 * 8 and run["imitation"] > 0
            assert 0 <= run["moved"]["success"] <= 1 and "swapped_images" in run
        assert student["fixed"]["mean"] == 0.0, "nobody lifts anything in 0.6 s"
    assert figures["depth_minus_state"]["moved"] == {"difference": 0.0, "interval": None}
    assert figures["share_of_teacher"]["depth"] == {"fixed": None, "moved": None}
    runs = tmp_path / "runs"
    assert len([path for path in runs.iterdir() if path.is_dir()]) == 4
    assert distillation.measure(arguments) == (settings, figures), "nothing is missing"
    arguments.episodes = 5
    with pytest.raises(ConfigError, match="figures of other settings"):
        distillation.measure(arguments)
