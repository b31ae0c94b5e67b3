import os
import subprocess
import sys
from pathlib import Path

import pytest

from dexgrasp_sim import ros_environment as subject
from dexgrasp_sim.ros_environment import WorkspaceError, find_workspace_root, ros_environment

ROOT = Path(__file__).parents[4]
PATHS = ("AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")


def make_workspace(folder: Path, setup: str | None) -> Path:
    """A repository's skeleton; with `setup` also what looks like a built workspace."""
    mark = folder / "ros2_ws/src/dexgrasp_msgs/package.xml"
    mark.parent.mkdir(parents=True)
    mark.touch()
    if setup is not None:
        install = folder / "ros2_ws/install"
        (install / "dexgrasp_msgs").mkdir(parents=True)
        (install / "setup.bash").write_text(setup)
    return folder


def test_the_root_is_found_from_this_file_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("DEXGRASP_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_workspace_root() == ROOT


def test_the_root_is_found_from_the_working_folder(tmp_path, monkeypatch):
    inside = make_workspace(tmp_path / "repository", None) / "some" / "folder"
    inside.mkdir(parents=True)
    monkeypatch.delenv("DEXGRASP_ROOT", raising=False)
    monkeypatch.setattr(subject, "__file__", str(tmp_path / "site-packages/module.py"))
    monkeypatch.chdir(inside)
    assert find_workspace_root() == tmp_path / "repository"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match="set DEXGRASP_ROOT to the dexgrasp repository"):
        find_workspace_root()


def test_the_variable_wins_and_a_wrong_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DEXGRASP_ROOT", str(make_workspace(tmp_path / "other", None)))
    assert find_workspace_root() == tmp_path / "other"
    monkeypatch.setenv("DEXGRASP_ROOT", str(tmp_path))
    with pytest.raises(WorkspaceError, match=f"DEXGRASP_ROOT={tmp_path}"):
        find_workspace_root()


def test_an_unbuilt_workspace_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DEXGRASP_ROOT", str(make_workspace(tmp_path, None)))
    with pytest.raises(WorkspaceError, match="run `make setup`"):
        ros_environment()


def test_a_broken_workspace_gives_the_reason(tmp_path, monkeypatch):
    workspace = make_workspace(tmp_path, "echo the underlay is gone >&2\nreturn 1\n")
    monkeypatch.setenv("DEXGRASP_ROOT", str(workspace))
    with pytest.raises(WorkspaceError, match=r"the underlay is gone.*make clean setup"):
        ros_environment()


def test_a_child_sends_our_messages(tmp_path):
    code = "from dexgrasp_msgs.msg import LearnerStatus as S; import rclpy; print(S.PAUSED)"
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=ros_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (child.returncode, child.stdout) == (0, "2\n"), child.stderr


def test_asking_again_inside_adds_nothing(monkeypatch):
    first = ros_environment()
    for name in PATHS:
        monkeypatch.setenv(name, first[name])
    again = ros_environment()
    for name in PATHS:
        assert set(again[name].split(os.pathsep)) == set(first[name].split(os.pathsep))
        assert len(again[name]) == len(first[name])


def test_every_child_finds_its_own_libraries(monkeypatch):
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in ros_environment()


def test_what_the_user_has_set_stays(monkeypatch):
    given = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
        "FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml",
        "FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml",
        "DEXGRASP_PLAIN": "line one\nµ = 2",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert given.items() <= ros_environment().items()


@pytest.mark.parametrize(
    ("distro", "variable"),
    [
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_each_distro_reads_its_own_variable(tmp_path, monkeypatch, distro, variable):
    monkeypatch.setenv(
        "DEXGRASP_ROOT", str(make_workspace(tmp_path, f"export ROS_DISTRO={distro}"))
    )
    monkeypatch.setattr(
        subject, "wheels_distro", lambda: None
    )  # a system ROS says its name itself
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    environment = ros_environment()
    profiles = {key: value for key, value in environment.items() if "DEFAULT_PROFILES" in key}
    assert profiles == {variable: str(tmp_path / "scripts/fastdds.xml")}


def test_the_profile_that_is_named_exists(monkeypatch):
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    (profile,) = (v for k, v in ros_environment().items() if "DEFAULT_PROFILES" in k)
    assert Path(profile).is_file()
