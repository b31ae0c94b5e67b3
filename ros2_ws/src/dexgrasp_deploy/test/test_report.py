"""The demo's report says what was measured."""

import base64
import html
import json
import re

import cv2
import numpy as np
import pytest

from dexgrasp_deploy.commands.report import learning_curve, read_metrics, write_report

OBJECTS = ("box", "cylinder", "<ball>")


def figures_of(success):
    return {
        "episodes": 321,
        "success_rate": success,
        "success_low": max(0.0, success - 0.03),
        "success_high": min(1.0, success + 0.02),
        "time_to_goal_s": 2.345 if success else None,
        "drop_rate": 0.0625,
        "in_goal_region_fraction": success / 2,
    }


def evaluation(success, **rates):
    return {
        **figures_of(success),
        "policy": "any",
        "objects": len(OBJECTS),
        "difficulty": 0.0,
        "max_lift_m": 0.2,
        "episode_return": 3.0,
        "per_object": {name: figures_of(rates.get(name, success)) for name in OBJECTS},
        "seed": 1,
        "diverged": 0,
    }


def records(count, ended_from=1, evaluated=()):
    """As a run writes them: episodes have ended from some iteration on, some were evaluated."""
    for iteration in range(1, count + 1):
        record = {"iteration": iteration, "run/minutes": iteration / 10, "run/reward": 0.1}
        if iteration >= ended_from:
            record["episode/success"] = iteration / count
        if iteration in evaluated:
            record["evaluation/success_rate"] = 0.9
        yield record


@pytest.fixture
def figures(tmp_path):
    run = tmp_path / "runs" / "laptop_1"
    run.mkdir(parents=True)
    lines = [json.dumps(record) + "\n" for record in records(20, 5, (15, 20))]
    (run / "metrics.jsonl").write_text("".join(lines))
    return {
        "training": {
            "run_dir": str(run),
            "env_steps": 1_234_567,
            "workers": 2,
            "minutes": 4.56,
        },
        "evaluations": {
            "untrained": evaluation(0.0),
            "trained": evaluation(0.9375, box=0.8125),
            "swapped images": evaluation(0.125),
            "scripted": evaluation(0.984375),
        },
        "bundle": "demo/bundle",
        "robot": {
            "episodes": 3,
            "success_rate": 2 / 3,
            "control_hz": 14.96,
            "deadline_misses": 4,
            "clamped_commands": 7,
            "outcomes": [robot_episode("<none>", True), robot_episode("box", False)],
        },
        "minutes": 7.89,
    }


def robot_episode(name, success):
    return {
        "object": name,
        "success": success,
        "max_lift_m": 0.2134,
        "steps": 68,
        "deadline_misses": 1,
        "clamped_commands": 3,
    }


def cells(page):
    """The texts of all table rows, cell by cell."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [
        [
            html.unescape(re.sub(r"<[^>]*>", "", cell)).strip()
            for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        ]
        for row in rows
    ]


def test_the_page_holds_the_figures(tmp_path, figures):
    path = write_report(tmp_path, figures)
    assert path == tmp_path / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "1,234,567 control steps" in page
    assert "4.56 minutes from random weights" in page
    assert "On 321 fresh" in page and "93.8&nbsp;% succeed" in page
    assert "7.89 minutes in all" in page and figures["training"]["run_dir"] in page
    assert 'src="grasps.mp4"' in page
    rows = cells(page)
    interval = "95\N{NO-BREAK SPACE}% interval"
    assert rows[0] == ["policy", "", "success", interval, "to goal", "dropped", *OBJECTS]
    trained = ["0.938", "0.907 to 0.958", "2.35 s", "0.062", "0.812", "0.938", "0.938"]
    assert ["trained", "", *trained] in rows
    untrained = ["0.000", "0.000 to 0.020", "never", "0.062", "0.000", "0.000", "0.000"]
    assert ["untrained", "", *untrained] in rows
    swapped = ["0.125", "0.095 to 0.145", "2.35 s", "0.062", "0.125", "0.125", "0.125"]
    assert ["swapped images", "", *swapped] in rows
    assert [row[0] for row in rows[1:5]] == list(figures["evaluations"])
    assert "2 of 3 episodes succeed" in page and "15.0&nbsp;Hz, 4 control" in page
    assert ["box", "failure", "0.21 m", "68", "1", "3"] in rows


def test_words_from_elsewhere_cannot_become_markup(tmp_path, figures):
    page = write_report(tmp_path, figures).read_text(encoding="utf-8")
    assert "<ball>" not in page and "&lt;ball&gt;" in page
    assert "&lt;none&gt;" in page


def test_the_curve_is_a_png_inside_the_page(tmp_path, figures):
    page = write_report(tmp_path, figures).read_text(encoding="utf-8")
    data = base64.b64decode(re.findall(r'src="data:image/png;base64,([^"]+)"', page)[0])
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == (432, 960, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


def test_nothing_is_loaded_from_elsewhere(tmp_path, figures):
    page = write_report(tmp_path, figures).read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|grasps\.mp4)', page)
    assert "http://" not in page and "https://" not in page


def test_a_demo_without_ros_says_so(tmp_path, figures):
    page = write_report(tmp_path, {**figures, "robot": None}).read_text(encoding="utf-8")
    assert "Not run." in page


def lines_of(figure):
    return {
        line.get_label(): line.get_xydata().tolist()
        for axis in figure.axes
        for line in axis.get_lines()
    }


def test_the_curve_has_the_points_of_the_records():
    shown = lines_of(learning_curve(list(records(4, 3, (4,)))))
    assert shown["exploring episodes"] == [[0.3, 0.75], [0.4, 1.0]]
    assert shown["evaluation, mean action"] == [[0.4, 0.9]]


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


def test_a_run_without_metrics_is_named(tmp_path, figures):
    figures["training"]["run_dir"] = str(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"none/metrics\.jsonl"):
        write_report(tmp_path, figures)
    assert not (tmp_path / "report.html").exists()
