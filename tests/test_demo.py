"""`dexgrasp demo`, short: a shipped policy on the robot, a training, both measured."""

import json
from pathlib import Path

import pytest

from dexgrasp_deploy.commands.cli import main
from test_support.bundles import SMALL, write

CONFIG = Path(__file__).parents[1] / "config" / "smoke.yaml"

SHORT = ["--episodes=2", "--minutes=0.2", "--set=training.iterations=2", "--json"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped") / "random"
    write(folder, SMALL)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_way_leaves_a_report_films_and_figures(shipped, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"--config={CONFIG}", f"--shipped={shipped}", f"--out={out}"]
    assert main(["demo", *arguments, "--robot-episodes=1", *SHORT]) == 0
    shown = capsys.readouterr()
    told = [line for line in shown.err.splitlines() if line.startswith(("dexgrasp", "1/", "6/"))]
    first, *stages = told
    assert "minutes on two idle cores" in first, "how long it takes comes first"
    assert [stage[:3] for stage in stages] == ["1/6", "6/6"]
    result = json.loads(shown.out.splitlines()[-1])
    saved = json.loads((out / "demo.json").read_text())
    assert {**result, "provenance": saved["provenance"]} == {
        **saved,
        "report": str(out / "report.html"),
    }
    rows = saved["evaluations"]
    assert list(rows) == ["shipped", "trained here", "untrained", "scripted"]
    assert all(row["episodes"] == 2 for row in rows.values())
    controlled = [name for name, row in rows.items() if row["swapped_images"]]
    assert controlled == ["shipped", "trained here"]
    for name, robot in saved["robots"].items():
        assert robot["episodes"] == len(robot["outcomes"]) == 1, name
    for name in ("report.html", "shipped.mp4", "trained.mp4", "trained.png", "bundle/policy.onnx"):
        assert (out / name).stat().st_size > 1000


def test_a_demo_without_its_shipped_policy_says_so_before_it_begins(tmp_path, capsys):
    arguments = [f"--shipped={tmp_path / 'none'}", f"--out={tmp_path / 'out'}"]
    assert main(["demo", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "none") in line and not (tmp_path / "out").exists()
