"""The curves of a run say what its records say."""

import cv2
import numpy as np
import pytest

from dexgrasp_learner.evaluation.curves import as_png, health_curves, learning_curve
from dexgrasp_learner.storage.origin import read_metrics, total


def records(count, ended_from=1, evaluated=()):
    """As a run writes them: episodes have ended from some iteration on, some were evaluated."""
    for iteration in range(1, count + 1):
        record = {
            "iteration": iteration,
            "run/minutes": iteration / 10,
            "run/env_steps": iteration * 100.0,
            "run/reward": 0.1,
        }
        if iteration >= ended_from:
            record["episode/success"] = iteration / count
        if iteration in evaluated:
            record["evaluation/success_rate"] = 0.9
        yield record


def lines_of(figure):
    return {
        line.get_label(): line.get_xydata().tolist()
        for axis in figure.axes
        for line in axis.get_lines()
    }


def test_the_curve_has_the_points_of_the_records():
    shown = lines_of(learning_curve(list(records(4, 3, (4,)))))
    assert shown["exploring episodes"] == [[300.0, 0.75], [400.0, 1.0]]
    assert shown["evaluation, mean action"] == [[400.0, 0.9]]
    assert "difficulty of the task" not in shown


def test_a_task_that_gets_harder_shows_how_hard_it_is():
    run = [record | {"adr/level": 0.1 * record["iteration"]} for record in records(2)]
    shown = lines_of(learning_curve(run))
    assert shown["difficulty of the task"] == [[100.0, 0.1], [200.0, 0.2]]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_run_that_was_too_short_for_any_episode_has_a_curve_too(count, recwarn):
    learning_curve(list(records(count, ended_from=99)))
    assert not [str(warning.message) for warning in recwarn]


def test_figures_that_were_not_finite_leave_gaps():
    incomplete = list(records(4))
    incomplete[1]["run/reward"] = None
    incomplete[2]["episode/success"] = None
    shown = lines_of(learning_curve(incomplete))
    assert np.isnan(shown["exploring episodes"][2][1])


def test_the_last_line_of_a_killed_run_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2, "run/re')
    assert read_metrics(path) == [{"iteration": 1}]


def test_the_parts_of_a_resumed_run_add_up():
    first, second = list(records(3)), list(records(2))
    assert total(first + second, "run/minutes") == pytest.approx(0.3 + 0.2)
    assert total([], "run/minutes") is None and total(first, "run/cpu_minutes") is None


def test_health_is_what_the_run_recorded():
    assert health_curves(list(records(3))) is None
    run = [record | {"update/kl": 0.02, "update/estimate_error": None} for record in records(3)]
    figure = health_curves(run)
    titles = [axis.get_title() for axis in figure.axes if axis.get_lines()]
    assert titles == ["KL divergence of an update, nats"]
    image = cv2.imdecode(np.frombuffer(as_png(figure), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape[1] == 960
