"""Set-up refuses a folder in which what it installs would not work, before any download."""

import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "scripts" / "setup.sh"


def set_up(folder):
    """Runs set-up in a folder, with an interpreter that does not exist; returns what it says."""
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(SETUP, folder / "scripts")
    done = subprocess.run(
        ["bash", "scripts/setup.sh"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/no/python3"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert [path.name for path in folder.iterdir()] == ["scripts"]
    return done.stderr


@pytest.mark.parametrize("name", ["my clone", "it's", "a;b", "a$b", "a:b", "a(1)", "back\\slash"])
def test_a_folder_that_colcon_or_cmake_cannot_handle_is_refused(name, tmp_path):
    said = set_up(tmp_path / name)
    assert str(tmp_path / name) in said and said.count("\n") == 1
    assert "colcon and CMake cannot handle" in said and "move the clone" in said


@pytest.mark.parametrize("name", ["clone", "my-clone_1.2", "Grüße", "a+b@c"])
def test_other_folders_are_taken(name, tmp_path):
    assert "missing system packages" in set_up(tmp_path / name)
