"""Where the figures of a run go, and what the episode figures are."""

import json
import math
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dexgrasp_learner.metrics import EpisodeStatistics, MetricsWriter, Progress, warn
from dexgrasp_sim.vec_env import EPISODE_FIELDS


def episode_rows(*rows):
    """[1, n, E] from (return, length, success, lift, dropped, object) rows."""
    return torch.tensor([rows], dtype=torch.float32)


def all_ended(rows):
    return torch.ones(rows.shape[:2], dtype=torch.bool)


def read_lines(folder):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def read_board(folder, name):
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return [(event.step, pytest.approx(event.value)) for event in board.Scalars(name)]


def test_the_means_are_those_of_the_episodes_that_ended():
    statistics = EpisodeStatistics()
    rows = episode_rows(
        (1.0, 10.0, 1.0, 0.25, 0.0, 2.0),
        (9.0, 99.0, 9.0, 9.0, 9.0, 9.0),
        (4.0, 20.0, 0.0, 0.5, 1, 0),
    )
    statistics.add(rows, torch.tensor([[True, False, True]]))
    assert statistics.count == 2
    assert statistics.success == 0.5
    assert statistics.means() == {
        "return": 2.5,
        "length": 15.0,
        "success": 0.5,
        "max_lift_m": 0.375,
        "dropped": 0.5,
    }


def test_a_rollout_of_many_steps_gives_all_its_episodes():
    rows = torch.zeros(3, 4, len(EPISODE_FIELDS))
    rows[:, :, 0] = torch.arange(12.0).view(3, 4)
    ended = torch.zeros(3, 4, dtype=torch.bool)
    ended[0, 1] = ended[2, 3] = True
    statistics = EpisodeStatistics()
    statistics.add(rows, ended)
    assert statistics.means()["return"] == (1 + 11) / 2


def test_only_the_last_episodes_of_the_window_count():
    statistics = EpisodeStatistics(window=2)
    for success in (0.0, 1.0, 1.0):
        rows = episode_rows((0.0, 1.0, success, 0.0, 0.0, 0.0))
        statistics.add(rows, all_ended(rows))
    assert (statistics.count, statistics.success) == (3, 1.0)


def test_before_any_episode_there_are_no_figures():
    statistics = EpisodeStatistics()
    statistics.add(torch.zeros(2, 3, len(EPISODE_FIELDS)), torch.zeros(2, 3, dtype=torch.bool))
    assert math.isnan(statistics.success)
    assert statistics.means() == {}


def test_later_changes_of_the_rollout_do_not_reach_the_statistics():
    rows = episode_rows((1.0, 1.0, 1.0, 0.0, 0.0, 0.0))
    statistics = EpisodeStatistics()
    statistics.add(rows, all_ended(rows))
    rows.zero_()
    assert statistics.success == 1.0


def test_a_state_that_went_through_json_continues_alike():
    first, second = EpisodeStatistics(window=3), EpisodeStatistics(window=3)
    rows = torch.rand(1, 5, len(EPISODE_FIELDS))
    first.add(rows, all_ended(rows))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for statistics in (first, second):
        statistics.add(rows[:, :1], all_ended(rows[:, :1]))
    assert first.state_dict() == second.state_dict()
    assert first.means() == second.means()


def test_lines_and_board_hold_the_same_figures(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"run/reward": 0.25, "run/env_steps": 123_456_789})
    writer.write(2, {"run/reward": -1.5, "run/env_steps": 123_456_790})
    writer.close()
    assert read_lines(tmp_path) == [
        {"iteration": 1, "run/reward": 0.25, "run/env_steps": 123_456_789},
        {"iteration": 2, "run/reward": -1.5, "run/env_steps": 123_456_790},
    ]
    assert read_board(tmp_path, "run/reward") == [(1, 0.25), (2, -1.5)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_in_the_line_and_absent_on_the_board(tmp_path, value):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"bad": value, "good": 1.0})
    writer.write(2, {"bad": 3.0, "good": 2.0})
    writer.close()
    assert [line["bad"] for line in read_lines(tmp_path)] == [None, 3.0]
    assert read_board(tmp_path, "bad") == [(2, 3.0)]
    assert read_board(tmp_path, "good") == [(1, 1.0), (2, 2.0)]


def test_a_line_is_on_the_disk_as_soon_as_it_is_written(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"run/reward": 0.5})
    assert read_lines(tmp_path) == [{"iteration": 1, "run/reward": 0.5}]
    writer.close()


def test_closing_twice_is_no_error(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.close()
    writer.close()


def wait_for_the_next_second():
    """TensorBoard orders a run's files by the second in their names; within one by chance."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.02)


def test_a_run_that_goes_on_has_every_iteration_once(tmp_path):
    writer = MetricsWriter(tmp_path)
    for iteration in range(1, 6):
        writer.write(iteration, {"x": float(iteration)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 6, "x": 6.')  # killed in the middle of a line
    wait_for_the_next_second()
    writer = MetricsWriter(tmp_path, iterations=3)
    writer.write(4, {"x": 40.0})
    writer.close()
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert [(line["iteration"], line["x"]) for line in read_lines(tmp_path)] == expected
    assert read_board(tmp_path, "x") == expected


def test_the_progress_bar_starts_where_the_run_does(capsys):
    with Progress(total=10, start=4, description="probe", enabled=True) as progress:
        assert math.isnan(progress.remaining_s) or progress.remaining_s >= 0
        progress.update(1234.5, 0.25, 0.5)
        progress.message("a line above")
    shown = capsys.readouterr()
    assert "5/10" in shown.err and "1,234 steps/s" in shown.err
    assert "a line above" in shown.out + shown.err


def test_a_disabled_bar_is_silent_but_warnings_are_not(capsys):
    with Progress(total=1, start=0, description="probe", enabled=False) as progress:
        progress.update(1.0, 0.0, math.nan)
        progress.message("unseen")
        warn("the disk is full")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "dexgrasp: the disk is full\n")
