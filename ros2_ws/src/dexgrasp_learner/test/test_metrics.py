"""Where the figures of a run go."""

import json
import math
import time
from contextlib import closing

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dexgrasp_learner.console import warn
from dexgrasp_learner.run.metrics import MetricsWriter, Progress


def read_lines(folder):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def read_board(folder, name):
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return [(event.step, pytest.approx(event.value)) for event in board.Scalars(name)]


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


def test_a_run_that_goes_on_has_every_iteration_once(tmp_path, monkeypatch):
    writer = MetricsWriter(tmp_path)
    for iteration in range(1, 6):
        writer.write(iteration, {"x": float(iteration)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 6, "x": 6.')  # killed in the middle of a line
    # TensorBoard orders a run's files by the second in their names; within one by chance
    later_s = time.time() + 60.0
    monkeypatch.setattr(time, "time", lambda: later_s)
    writer = MetricsWriter(tmp_path, iterations=3)
    writer.write(4, {"x": 40.0})
    writer.close()
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert [(line["iteration"], line["x"]) for line in read_lines(tmp_path)] == expected
    assert read_board(tmp_path, "x") == expected


def test_the_progress_bar_starts_where_the_run_does(capsys):
    with closing(Progress(total=10, start=4, description="probe", enabled=True)) as progress:
        assert math.isnan(progress.remaining_s) or progress.remaining_s >= 0
        progress.update(1234.5, 0.25, 0.5)
        progress.message("a line above")
    shown = capsys.readouterr()
    assert "5/10" in shown.err and "1,234 steps/s" in shown.err
    assert "a line above" in shown.out + shown.err


def test_a_disabled_bar_is_silent_but_warnings_are_not(capsys):
    with closing(Progress(total=1, start=0, description="probe", enabled=False)) as progress:
        progress.update(1.0, 0.0, math.nan)
        progress.message("unseen")
        warn("the disk is full")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "dexgrasp: the disk is full\n")
