"""The demo's report says what was measured."""

import base64
import html
import json
import re

import cv2
import numpy as np
import pytest

from dexgrasp_deploy.commands.report import write_report
from dexgrasp_learner.evaluation.figures import Assessment, Evaluation, Figures

OBJECTS = ("box", "cylinder", "<ball>")
FAILURES = {"reach": 1, "grasp": 2, "lift": 3, "hold": 4}


def figures_of(success):
    return {
        "episodes": 321,
        "success_rate": success,
        "success_low": max(0.0, success - 0.03),
        "success_high": min(1.0, success + 0.02),
        "time_to_goal_s": 2.345 if success else None,
        "drop_rate": 0.0625,
        "in_goal_region_fraction": success / 2,
        "failures": FAILURES,
    }


def evaluation(policy, success, **rates):
    return Evaluation(
        **figures_of(success),
        policy=policy,
        objects=len(OBJECTS),
        difficulty=0.0,
        max_lift_m=0.2,
        episode_return=3.0,
        per_object={name: Figures(**figures_of(rates.get(name, success))) for name in OBJECTS},
        seed=1,
        diverged=0,
    )


ASSESSMENTS = [
    Assessment("bundles/x", "", evaluation("shipped", 0.96875), evaluation("shipped, s", 0.25)),
    Assessment(
        "runs/y", "", evaluation("trained here", 0.9375, box=0.8125), evaluation("t", 0.125)
    ),
    Assessment("runs/y", "", evaluation("<untrained>", 0.0)),
    Assessment("scripted", "", evaluation("scripted", 0.984375)),
]


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
        "shipped": "bundles/<x>",
        "bundle": "demo/bundle",
        "robots": {
            "shipped": robot(robot_episode("<none>", True), robot_episode("box", False)),
            "trained": robot(robot_episode("sphere", True)),
        },
        "provenance": {
            "commit": "c0ffee",
            "started": "today",
            "hardware": {"cpu": "<cpu>", "cores": 2},
        },
        "minutes": 7.89,
    }


def robot(*outcomes):
    return {
        "episodes": len(outcomes),
        "success_rate": 0.5,
        "control_hz": 14.96,
        "deadline_misses": 4,
        "outcomes": list(outcomes),
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


def written(folder, figures):
    return write_report(folder, figures, ASSESSMENTS).read_text(encoding="utf-8")


def test_the_page_holds_the_figures(tmp_path, figures):
    assert write_report(tmp_path, figures, ASSESSMENTS) == tmp_path / "report.html"
    page = written(tmp_path, figures)
    assert "1,234,567 control steps" in page
    assert "4.56 minutes from random weights" in page
    assert "On 321 fresh" in page and "93.8&nbsp;% succeed" in page and "96.9&nbsp;%" in page
    assert "7.89 minutes in all" in page and figures["training"]["run_dir"] in page
    assert 'src="shipped.mp4"' in page and 'src="trained.mp4"' in page
    rows = cells(page)
    assert rows[0][0] == "policy" and rows[0][-1] == "other images"
    assert [row[0] for row in rows[1:5]] == [item.own.policy for item in ASSESSMENTS]
    trained = ["0.938", "0.907 to 0.958", "321", "2.35 s", "0.062", "0.125"]
    assert rows[2][2:] == trained
    assert rows[3][2:] == ["0.000", "0.000 to 0.020", "321", "never", "0.062", ""]
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())
    assert "grasp: 2, it did, and the object was never lifted" in words
    assert words.index("box 0.81") < words.index("cylinder 0.94"), "the hardest object first"
    assert "1 of 2 episodes succeed" in page and "15.0&nbsp;Hz, 4 control" in page
    assert ["box", "failure", "0.21 m", "68", "1", "3"] in rows


def test_words_from_elsewhere_cannot_become_markup(tmp_path, figures):
    page = written(tmp_path, figures)
    for word in ("ball", "none", "untrained", "x", "cpu"):
        assert f"<{word}>" not in page and f"&lt;{word}&gt;" in page


def test_the_curve_is_a_png_inside_the_page(tmp_path, figures):
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', written(tmp_path, figures))[0]
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == (432, 960, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


def test_nothing_is_loaded_from_elsewhere(tmp_path, figures):
    page = written(tmp_path, figures)
    assert not re.findall(r'(?:src|href)="(?!data:|shipped\.mp4|trained\.mp4)', page)
    assert "http://" not in page and "https://" not in page


def test_a_demo_without_ros_says_so(tmp_path, figures):
    page = written(tmp_path, {**figures, "robots": {"shipped": None, "trained": None}})
    assert "Not run." in page


def test_a_run_without_metrics_is_named(tmp_path, figures):
    figures["training"]["run_dir"] = str(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"none/metrics\.jsonl"):
        write_report(tmp_path, figures, ASSESSMENTS)
    assert not (tmp_path / "report.html").exists()
