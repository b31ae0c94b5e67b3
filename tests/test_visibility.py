"""`bench visibility` and `bench randomization`: their arithmetic, and each at a tiny size."""

import argparse

import numpy as np
import pytest
import torch

from benchmarks import CHECKOUT, randomization, visibility
from benchmarks.visibility import Counts, fit, phases, places_of_objects, shares
from dexgrasp_learner.config import load_run_config
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.schedules import current_ranges
from dexgrasp_sim.vision.camera import CameraConfig

WIDE = CHECKOUT / "config" / "laptop_wide.yaml"


def arguments(benchmark, *texts):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(texts)


def test_an_object_is_lifted_only_after_the_hand_was_near():
    touched = torch.zeros(3, dtype=torch.bool)
    half = torch.full((3,), 0.05)
    far, low = torch.full((3,), 0.2), torch.zeros(3)
    dropping = torch.tensor([0.08, 0.0, 0.0])
    assert phases(far, half, dropping, touched).tolist() == [0, 0, 0]
    near = torch.tensor([0.2, 0.04, 0.04])
    assert phases(near, half, low, touched).tolist() == [0, 1, 1]
    high = torch.tensor([0.0, 0.06, 0.0])
    assert phases(far, half, high, touched).tolist() == [0, 2, 1]


def test_shares_are_of_the_frames_of_a_phase():
    steps = [
        # hidden by three quarters, fully seen, hidden, seen
        Counts(
            torch.tensor([0, 0, 0, 2]), torch.tensor([5, 9, 0, 8]), torch.tensor([20, 9, 9, 8])
        ),
        # too few pixels, out of view
        Counts(torch.tensor([0, 2]), torch.tensor([3, 0]), torch.tensor([3, 0])),
    ]
    found = shares(steps)
    assert found["before_contact"] == {
        "frames": 4,
        "visible": 0.5,
        "visible_part": pytest.approx((0.25 + 1 + 0 + 1) / 4),
        "out_of_view": 0.25,
        "mean_pixels": pytest.approx((5 + 9 + 0 + 3) / 4, abs=0.05),
    }
    assert (found["lifted"]["visible"], found["lifted"]["out_of_view"]) == (0.5, 0.5)
    assert "near" not in found


@pytest.mark.parametrize("place", visibility.PLACES.values(), ids=list(visibility.PLACES))
def test_a_fitted_camera_sees_all_places_of_objects_and_hardly_more(place):
    task = load_run_config(WIDE).task
    points = places_of_objects(task)
    camera = fit(CameraConfig(64, 32, 40.0, place, look_at_m=(-0.55, 0.1, 0.3)), points)
    assert camera.sees(points).all()
    pixel, _ = camera.project(points)
    away = np.abs(2 * pixel - [63, 31]) / [64, 32]  # 1 at the edge of the image
    assert away.max() == pytest.approx(1 / 1.04, abs=0.01)


def test_the_wide_camera_is_among_the_candidates():
    task = load_run_config(WIDE).task
    assert visibility.candidates(task)["config"] == task.camera


@pytest.mark.slow
def test_cameras_watch_the_same_steps():
    args = arguments(visibility, f"--config={WIDE}", "--set", "task.episode_s=1.0", "--episodes=3")
    settings, figures = visibility.measure(args)
    frames = [
        sum(phase["frames"] for name, phase in camera.items() if name != "camera")
        for camera in figures["cameras"].values()
    ]
    assert settings["episodes"] == 3 and len({*frames}) == 1
    assert frames[0] == 3 * 15  # nothing ends before its time-out


def test_only_the_named_schedule_follows_the_difficulty():
    task = load_run_config(CHECKOUT / "config" / "paper.yaml").task
    known = randomization.physical_schedules(task)
    assert "randomization.friction_scale" in known and "action.damping_per_s" in known
    assert not any(name.startswith("observation_noise") for name in known)
    alone = randomization.only(task, ["randomization.friction_scale"], 1.0)
    first, last = current_ranges(task, 0.0), current_ranges(task, 1.0)
    now = current_ranges(alone, alone.difficulty)
    assert now["randomization.friction_scale"] == last["randomization.friction_scale"]
    for name in known:
        if name != "randomization.friction_scale" and name in now:
            assert now[name] == first[name]


def test_a_schedule_that_is_not_there_is_one_line():
    args = arguments(randomization, f"--config={WIDE}", "--parameters", "randomization.gravity")
    with pytest.raises(
        ConfigError, match=r"--parameters randomization.gravity: give some of none"
    ):
        randomization.measure(args)


@pytest.mark.slow
def test_a_randomization_is_measured_alone():
    args = arguments(
        randomization,
        f"--config={WIDE}",
        "--parameters",
        "none",
        "randomization.spawn_width_scale",
        "--set",
        "task.episode_s=1.0",
        "--episodes=2",
        "--difficulties",
        "0.5",
    )
    _, figures = randomization.measure(args)
    assert figures["parameters"]["none"][0]["range"] is None
    (width,) = figures["parameters"]["randomization.spawn_width_scale"]
    assert width["level"] == 0.5 and width["range"] == pytest.approx((0.65, 0.65))
    assert width["success_rate"] == 0.0  # a second is too short
