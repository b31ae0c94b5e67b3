"""Benchmarks at tiny sizes: the figures that they promise, and that both sides do the same."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    CHECKOUT,
    batch_size,
    learner,
    learning,
    parity,
    pipeline,
    teachers,
    transport,
)
from benchmarks.learner_side import run_ours
from benchmarks.learner_workload import Sizes
from benchmarks.peers.transport import PEERS, Payload
from dexgrasp_deploy.commands import bench
from dexgrasp_deploy.commands.cli import USAGE_ERROR, main
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.ros_environment import ROOT_VARIABLE

torch.set_num_threads(1)

LAPTOP = CHECKOUT / "config" / "laptop_depth.yaml"

PAYLOAD = Payload(3, {"image": ((4, 5), "uint8"), "state": ((6,), "float32")})
INSTALLED = {name: peer.make for name, peer in PEERS.items() if peer.is_installed}
CARRIERS = {"memcpy": transport.MemcpyCarrier, "dexgrasp": transport.PoolCarrier, **INSTALLED}


def arguments(benchmark, *texts):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(texts)


def test_every_benchmark_has_a_command_line():
    """And nothing else in the folder looks like a benchmark."""
    measuring = {
        file.stem
        for file in Path(transport.__file__).parent.glob("*.py")
        if "\ndef measure(" in file.read_text(encoding="utf-8")
    }
    assert measuring == set(bench.BENCHMARKS)


def test_without_a_checkout_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert main(["bench", "sim"]) == USAGE_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "need a checkout" in line and str(tmp_path) in line


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CARRIERS if name != "dexgrasp"])
def test_a_carrier_brings_all_observations_every_step(name):
    carrier = CARRIERS[name](PAYLOAD)
    try:
        for _ in range(3):
            observations = carrier.step()
            for group, expected in PAYLOAD.observations().items():
                np.testing.assert_array_equal(np.asarray(observations[group]), expected)
    finally:
        carrier.close()


@pytest.mark.slow
def test_our_pool_carries_what_its_environments_hold():
    """Its environments fill the observations by a rule of their own."""
    carrier = transport.PoolCarrier(PAYLOAD)
    try:
        first = {name: tensor.clone() for name, tensor in carrier.step().items()}
        assert all(tensor.count_nonzero() > 0 for tensor in first.values())
        for tensor in carrier.step().values():
            tensor.zero_()
        for name, tensor in carrier.step().items():
            assert tensor.shape == (3, *PAYLOAD.groups[name][0])
            assert torch.equal(tensor, first[name])
    finally:
        carrier.close()


def test_payloads_have_the_sizes_of_their_names():
    sizes = {name: payload.nbytes for name, payload in transport.make_payloads(256, 512).items()}
    assert sizes == {
        "1_kb": 1024,
        "1_mb": 256 * (48 * 64 + 180 * 4),
        "10_mb": 512 * (120 * 160 + 180 * 4),
    }


@pytest.mark.slow
def test_transport_gives_its_figures():
    args = arguments(
        transport, "--envs", "2", "2", "--rounds", "1", "--steps", "2", "--peers", "pipe"
    )
    settings, figures = transport.measure(args)
    assert settings["envs"] == {"1_kb": 1, "1_mb": 2, "10_mb": 2}
    assert all(figures[name] > 0 for name in ("memcpy_fraction", "fixed_cost_ms", "vs_pipe"))
    assert figures["vs_gymnasium"] is None
    assert ("ray" in figures["not_installed"]) != PEERS["ray"].is_installed
    for rows in figures["step_ms"].values():
        assert set(rows) == {"memcpy", "dexgrasp", "pipe"}
        assert all(row["p10"] <= row["median"] <= row["p90"] for row in rows.values())


@pytest.mark.slow
def test_learner_compares_the_same_update():
    args = arguments(
        learner, "--envs", "16", "--horizon", "5", "--memory", "8", "--end-probability", "0.2",
        "--repeats", "1",
    )  # fmt: skip
    settings, figures = learner.measure(args)
    assert settings["rsl_rl"] and settings["envs"] == 16
    assert figures["loss_difference"] < 1e-5
    for name in ("time_ratio", "memory_ratio", "whole_time_ratio"):
        assert math.isfinite(figures[name]) and figures[name] > 0
    (ours,), (theirs,) = figures["sides"]["dexgrasp"], figures["sides"]["rsl_rl"]
    assert ours["parameters"] == theirs["parameters"]


def test_the_learner_s_losses_are_not_trivial():
    """The policy that learns is not the one that acted, else no loss would say anything."""
    result = run_ours(Sizes(envs=16, horizon=4, memory=8, hidden=(16,)))
    assert abs(result.surrogate) > 1e-4
    assert result.value > 0.1


@pytest.mark.slow
def test_pipeline_gives_its_figures():
    args = arguments(pipeline, "--envs", "4", "--memory", "4", "--rollouts", "1", "--rounds", "1")
    settings, figures = pipeline.measure(args)
    assert settings["envs"] == 4
    assert all(
        figures[name] > 0
        for name in ("double_buffered_ratio", "overlap_ratio", "overlapped_run_steps_per_s")
    )
    assert figures["run_seconds"].keys() == {"barrier", "overlapped"}


@pytest.mark.slow
def test_learning_is_judged_on_fresh_episodes_beside_swapped_images():
    overrides = ["training.iterations=2", "task.episode_s=1.0", "simulators.transport=in_process"]
    options = [part for text in overrides for part in ("--set", text)]
    smoke = str(CHECKOUT / "config" / "smoke.yaml")
    args = arguments(
        learning, "--presets", smoke, "--seeds", "3", "--episodes", "4", "--updates", "1", *options
    )
    _, figures = learning.measure(args)
    preset = figures["presets"]["smoke"]
    (run,) = preset["runs"]
    assert (preset["reached"], preset["of"], run["seed"]) == (0, 1, 3)
    assert run["steps"] == (1 + 2) * 16 * 8 and run["steps_to_target"] is None
    assert 0.0 <= run["success_with_swapped_images"] <= 1.0 and run["cpu_s"] > 0
    ((steps, _, minutes, cpu_minutes),) = run["curve"]  # evaluated at its end
    assert steps == run["steps"] and 0 < minutes <= run["minutes"]
    assert 0 < 60 * cpu_minutes <= run["cpu_s"]
    assert figures["update"]["passes"] == 5 * 16 * 128
    assert 0 < figures["update"]["ratio"] < 1


@pytest.mark.slow
def test_twice_the_environments_take_the_same_steps_in_half_the_updates():
    overrides = ["task.episode_s=1.0", "simulators.transport=in_process"]
    options = [part for text in overrides for part in ("--set", text)]
    options += ["--seeds", "3", "--steps", "512", "--episodes", "2"]
    smoke = str(CHECKOUT / "config" / "smoke.yaml")
    _, figures = batch_size.measure(arguments(batch_size, "--preset", smoke, *options))
    once, twice = figures["1x"], figures["2x"]
    assert (once["num_envs"], twice["num_envs"]) == (16, 32)
    assert (once["updates"], twice["updates"]) == (3, 1)
    assert once["runs"][0]["steps"] == twice["runs"][0]["steps"] == 512
    gain = twice["success"]["mean"] - once["success"]["mean"]
    assert figures["difference"]["mean"] == pytest.approx(gain)


def test_an_interval_of_a_mean_by_hand():
    # t(0.975, 2) = 4.3027; standard deviation 0.1, error 0.1 / sqrt(3)
    interval = batch_size.mean_with_interval([0.7, 0.8, 0.9])
    assert interval == {"mean": 0.8, "low": 0.5516, "high": 1.0484}


@pytest.mark.slow
def test_teachers_are_trained_with_and_without_a_memory():
    overrides = ["training.iterations=1", "task.episode_s=1.0", "simulators.transport=in_process"]
    options = [part for text in overrides for part in ("--set", text)]
    smoke = str(CHECKOUT / "config" / "smoke.yaml")
    args = arguments(teachers, "--presets", smoke, "--episodes", "2", *options)
    _, figures = teachers.measure(args)
    assert figures["smoke"].keys() == {"none", "lstm"}
    assert all(
        run["steps"] == 2 * 16 * 8 and run["cpu_s"] > 0 for run in figures["smoke"].values()
    )


@pytest.mark.slow
def test_a_backend_is_like_itself_and_grasps():
    options = ("--backends=mujoco", "--per-class=1", "--episodes=3", f"--config={LAPTOP}")
    settings, figures = parity.measure(arguments(parity, *options))
    own = figures["mujoco"]
    assert len(settings["objects"]) == own["environments"] == 6  # the shape classes of the set
    for name in ("depth_m", "rest_height_m", "joint_position_rad"):
        assert own[name]["max"] == 0.0
    assert own["scripted_success"] == 1.0
    assert own["rest_height_above_shape_mm"] < 1.0


def test_a_backend_that_is_not_known_is_not_compared():
    with pytest.raises(ConfigError, match=r"--backends bullet: give some of mujoco"):
        parity.measure(arguments(parity, "--backends=mujoco,bullet"))
