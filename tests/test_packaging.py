"""The packages agree on their version; what they import is declared, once, and pinned."""

import ast
import importlib
import re
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MANIFESTS = sorted((ROOT / "ros2_ws" / "src").glob("*/package.xml"))
ROS = re.compile(r"rclpy|launch(_ros)?|ament_index_python|dexgrasp_.+|.+_(msgs|srvs|interfaces)")
LOCKS = ROOT / "scripts" / "lock"
PROJECT = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(
    (ROOT / "pyproject.toml").read_text(encoding="utf-8")
)["project"]
BASE = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts]
    for name, texts in PROJECT["optional-dependencies"].items()
}
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "rsl_rl": "rsl-rl-lib",
    "warp": "warp-lang",
    "pxr": "usd-exchange",
}
"""Of imports that are named otherwise."""
PACKAGES = {"dexgrasp_sim", "dexgrasp_learner", "dexgrasp_deploy"}
LOADED_BY_TORCH = {"onnxscript", "tensorboard"}
"""By torch.onnx.export and torch.utils.tensorboard."""
ISAAC = {"isaaclab", "isaaclab-newton", "newton", "usd-exchange", "urdf-usd-converter"}
"""Of an environment of their own, see scripts/setup_isaac.sh."""
RUN_AS_COMMANDS = {"pytest-timeout", "pytest-xdist", "pyright", "ruff", "setuptools"}


def declared(pattern: str, file: Path) -> str:
    found = re.findall(pattern, file.read_text(), flags=re.MULTILINE)
    assert len(found) == 1, f"{file}: {found}"
    return found[0]


def test_there_is_one_version():
    versions = {"pyproject.toml": declared(r'^version = "(.+)"$', ROOT / "pyproject.toml")}
    for manifest in MANIFESTS:
        name = manifest.parent.name
        versions[f"{name}/package.xml"] = declared("<version>(.+)</version>", manifest)
        setup = manifest.with_name("setup.py")
        if setup.exists():
            versions[f"{name}/setup.py"] = declared(r'^ +version="(.+)",$', setup)
    assert len(versions) == 8
    assert len(set(versions.values())) == 1, versions


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_a_package_is_what_its_folder_says(manifest):
    package = ElementTree.parse(manifest).getroot()
    assert package.findtext("name") == manifest.parent.name
    assert package.findtext("license") == "Apache-2.0"


def imports(*folders: Path) -> set[str]:
    """Packages outside the standard library that the code imports, also inside functions."""
    files = (file for folder in folders for file in folder.rglob("*.py"))
    return set().union(*map(imports_of, files)) - sys.stdlib_module_names


@cache
def imports_of(file: Path) -> set[str]:
    """First parts of the names of all modules that a file imports."""
    nodes = [*ast.walk(ast.parse(file.read_text()))]
    modules = [
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    ]
    modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[0] for module in modules}


def python_imports(*folders: Path) -> set[str]:
    """Distributions of what the code imports beside ROS."""
    found = {name for name in imports(*folders) if not ROS.fullmatch(name)}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in found}


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_a_package_declares_the_ros_packages_it_imports(manifest):
    package = ElementTree.parse(manifest).getroot()
    declared = {element.text for element in package if element.tag.endswith("depend")}
    imported = {name for name in imports(manifest.parent) if ROS.fullmatch(name)}
    imported.discard(manifest.parent.name)
    imported.discard("launch")  # comes with launch_ros
    assert imported - declared == set()


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_a_package_declares_no_ros_package_that_it_does_not_name(manifest):
    package = ElementTree.parse(manifest).getroot()
    named = "".join(
        file.read_text(encoding="utf-8")
        for file in manifest.parent.rglob("*")
        if file.suffix in {".py", ".txt", ".msg"}
    )
    declared = {element.text for element in package if element.tag.endswith("depend")}
    # pytest runs the tests; an action's interface is built from action_msgs
    declared -= {"python3-pytest", "ament_cmake", "action_msgs"}
    assert {name for name in declared if not re.search(rf"\b{name}\b", named)} == set()


def test_every_source_folder_is_a_package():
    folders = {file.parent for file in ROOT.glob("ros2_ws/src/*/dexgrasp_*/**/*.py")}
    assert folders
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_packages_import_what_they_declare_and_no_more():
    packages = [ROOT / "ros2_ws/src" / name / name for name in sorted(PACKAGES)]
    assert all(package.is_dir() for package in packages)
    found = python_imports(*packages)
    assert found - ISAAC == names(BASE) - LOADED_BY_TORCH | names(EXTRAS["warp"])


def test_tests_and_benchmarks_import_what_is_declared():
    folders = [ROOT / name for name in ("tests", "benchmarks", "test_support")]
    folders += ROOT.glob("ros2_ws/src/*/test")
    helpers = {file.stem for folder in folders for file in folder.rglob("*.py")}
    helpers |= {"benchmarks", "test_support"}
    found = python_imports(*folders) - set(map(canonicalize_name, helpers))
    allowed = names(BASE) | names(EXTRAS["dev"]) | names(EXTRAS["bench"]) | names(EXTRAS["warp"])
    assert found - allowed == set()
    assert names(EXTRAS["dev"]) - found == RUN_AS_COMMANDS


def test_nothing_is_declared_twice():
    without_ros = [names(BASE), *(names(EXTRAS[name]) for name in EXTRAS if "ros-" not in name)]
    assert sum(map(len, without_ros)) == len(set().union(*without_ros))


@pytest.mark.parametrize("file", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.name)
def test_what_set_up_installs_is_pinned(file):
    lines = file.read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.match(r"[\w.-]+==[\w.+]+( ; .+)?$", line)] == []


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_a_pinned_version_is_one_that_is_asked_for(extra, python):
    """Fails after an edit of pyproject.toml until scripts/lock.sh has run."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
    }

    def holds(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(environment)

    files = ["python.txt", *([f"{extra}.txt"] if extra and "ros-" in extra else [])]
    lines = [line for file in files for line in (LOCKS / file).read_text().splitlines()]
    pins = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in map(Requirement, lines)
        if holds(pin)
    }
    for requirement in filter(holds, EXTRAS[extra] if extra else BASE):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
