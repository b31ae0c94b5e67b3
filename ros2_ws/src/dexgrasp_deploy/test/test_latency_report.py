"""Histograms of delays, their report as JSON and table, and what training gets of them."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.commands.cli import main
from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime
from dexgrasp_deploy.control.telemetry.laps import LapTimer
from dexgrasp_deploy.control.telemetry.latency import Latencies, Stage
from dexgrasp_deploy.control.telemetry.training_latency import training_latency
from dexgrasp_learner.config import load_run_config

DT_S = 0.05


def counted(stage, *durations_s):
    latencies = Latencies(DT_S)
    for duration_s in durations_s:
        latencies.add(stage, duration_s)
    return latencies


@given(st.lists(st.floats(2e-6, 50.0), min_size=1, max_size=60), st.floats(1.0, 100.0))
def test_a_percentile_is_at_most_a_bin_above_the_exact_one(durations_s, percent):
    found = counted(Stage.INFERENCE, *durations_s).percentile_s(Stage.INFERENCE, percent)
    exact = np.percentile(durations_s, percent, method="inverted_cdf")
    assert exact * (1 - 1e-9) <= found <= exact * 1.024


def test_what_is_no_duration_is_not_counted_and_a_negative_one_is_zero():
    latencies = counted(Stage.SAFETY, float("nan"), float("inf"), -1.0, 1e9)
    assert latencies.count(Stage.SAFETY) == 2
    assert latencies.percentile_s(Stage.SAFETY, 50) <= 1e-6
    assert latencies.largest_s(Stage.SAFETY) == 1e9
    assert np.isnan(latencies.mean_s(Stage.PAIRING))


def test_a_report_is_read_back_and_a_table_has_a_line_for_each_stage():
    latencies = counted(Stage.INFERENCE, 0.001, 0.003)
    latencies.add(Stage.JOINT_AGE, 0.02)
    values = json.loads(json.dumps(latencies.as_dict()))
    again = Latencies.from_dict(values)
    assert again.as_dict() == latencies.as_dict()
    assert values["stages"]["inference"]["mean_ms"] == pytest.approx(2.0)
    assert values["stages"]["inference"]["max_ms"] == pytest.approx(3.0)
    assert [count for _, count in values["stages"]["inference"]["histogram"]] == [1, 1]
    head, *lines = latencies.table().splitlines()
    assert head.split() == ["latency,", "ms", "count", "mean", "p50", "p90", "p99", "max", "cpu"]
    assert [line.split()[0] for line in lines] == ["joint", "inference"]


def test_the_stages_of_a_period_add_up_to_it_in_time_and_in_computing():
    now_s, cpu_s = [5.0], [1.0]
    latencies = Latencies(DT_S)
    laps = LapTimer(latencies, lambda: now_s[0], lambda: cpu_s[0])

    def stage(name, duration_s, computing_s):
        now_s[0] += duration_s
        cpu_s[0] += computing_s
        laps.end(name)

    for kept in (True, False, True):
        laps.begin()
        stage(Stage.RECEIVING, 0.001, 0.001)
        stage(Stage.INFERENCE, 0.004, 0.002)
        stage(Stage.RECEIVING, 0.002, 0.001)
        if kept:
            laps.keep()
        now_s[0] += 0.013
    laps.begin()
    figures = latencies.summary()
    assert set(figures) == {"receiving", "inference", "until the next step", "period"}
    assert figures["period"]["mean_ms"] == pytest.approx(20.0)
    assert figures["period"]["cpu_ms"] == pytest.approx(4.0)
    assert figures["receiving"]["mean_ms"] == pytest.approx(3.0)
    assert figures["until the next step"]["mean_ms"] == pytest.approx(13.0)
    assert all(stage["count"] == 2 for stage in figures.values())


def test_training_draws_between_the_percentiles_in_its_own_units():
    latencies = counted(Stage.IMAGE_AGE, *([0.1] * 99), 5.0)
    for _ in range(3):
        latencies.add(Stage.ACTION_DELAY, 0.004)
    found = training_latency(latencies, reaction_s=0.01)
    assert set(found) == {"action_delay_s", "image_age_steps"}
    assert found["action_delay_s"]["initial"] == pytest.approx([0.014, 0.014], rel=1e-3)
    # 0.1 s are two control steps of 0.05 s; the one stall is beyond the 99th percentile
    assert found["image_age_steps"]["initial"] == pytest.approx([2.0, 2.0], rel=0.024)


@pytest.mark.slow
def test_delays_of_an_episode_are_those_that_the_robot_had(bundle, robot, port, clock):
    loop = ControlLoop(PolicyRuntime(bundle), robot, port, clock, ControlConfig())
    loop.start()
    loop.run(stop=lambda: not loop.episode.active)
    latencies = loop.steps.latencies
    steps = loop.progress.steps
    assert steps == 18
    for stage in (Stage.PREPROCESSING, Stage.INFERENCE, Stage.DECODING, Stage.ACTION_DELAY):
        assert latencies.count(stage) == steps
    assert latencies.count(Stage.LATENESS) == steps + 1, "the last period ends the episode"
    assert latencies.largest_s(Stage.LATENESS) == 0.0, "the clock stands between deadlines"
    assert latencies.count(Stage.IMAGE_AGE) == latencies.count(Stage.IMAGE_TO_COMMAND) == steps
    assert latencies.count(Stage.PUBLISHING) == steps == len(port.sent) - 1, "one goes home"
    assert latencies.count(Stage.PERIOD) == latencies.count(Stage.REST) == steps


def test_a_training_config_is_written_from_a_report(tmp_path, capsys):
    latencies = counted(Stage.ACTION_DELAY, 0.02, 0.02)
    latencies.add(Stage.JOINT_AGE, 0.05)
    report, out = tmp_path / "latency.json", tmp_path / "robot.yaml"
    report.write_text(json.dumps(latencies.as_dict()))
    base = tmp_path / "base.yaml"
    base.write_text("name: lab\n")
    arguments = ["latency", str(report), "--out", str(out), "--base", str(base), "--json"]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert yaml.safe_load(out.read_text())["task"] == printed["task"]
    config = load_run_config(out)
    assert config.name == "lab"
    assert config.task.latency.action_delay_s.initial == pytest.approx((0.02, 0.02), rel=0.024)
    assert config.task.latency.joint_age_steps.initial == pytest.approx((1.0, 1.0), rel=0.024)
    assert main(arguments) == 2, "a config is not overwritten"
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "format is None"),
        ("[1]", "it is no object"),
        ("policy", "Expecting value"),
        ('{"format": "dexgrasp latency 1", "control_dt_s": 0.1, "stages": {"a": {}}}', "'a'"),
        ('{"format": "dexgrasp latency 1", "stages": {}}', "control_dt_s"),
    ],
)
def test_a_file_without_a_report_is_refused_in_one_line(tmp_path, capsys, text, message):
    file = tmp_path / "report.json"
    file.write_text(text)
    assert main(["latency", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{file}: holds no latency report" in error and message in error
