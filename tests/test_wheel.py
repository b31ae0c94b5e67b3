"""The package that `pip install .` makes: complete, and usable without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dexgrasp_sim.ros_environment import ROOT_VARIABLE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("dexgrasp_sim", "dexgrasp_learner", "dexgrasp_deploy")
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the files of the wheel, made from a copy: a build writes beside sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / "ros2_ws/src" / package,
            source / "ros2_ws/src" / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def files_of(package: Path) -> set[str]:
    return {
        str(file.relative_to(package.parent))
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_a_wheel_holds_the_three_packages_with_their_data(site):
    made = [package for package in site.iterdir() if package.suffix != ".dist-info"]
    assert {package.name for package in made} == set(PACKAGES)
    for package in PACKAGES:
        assert files_of(site / package) == files_of(ROOT / "ros2_ws/src" / package / package)


def test_the_command_works_without_a_checkout(site, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != ROOT_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "dexgrasp_deploy.commands.cli", "inspect", "robot", "--json"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    robot = json.loads(done.stdout)
    assert Path(robot["urdf"]).is_relative_to(site)
    assert len(robot["joint_names"]) == 23
