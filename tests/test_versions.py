"""The packages agree on their version and are complete; what set-up installs is pinned."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
MANIFESTS = sorted((ROOT / "ros2_ws" / "src").glob("*/package.xml"))
ROS = re.compile(r"rclpy|launch(_ros)?|ament_index_python|dexgrasp_.+|.+_(msgs|srvs|interfaces)")
REQUIREMENTS = sorted((ROOT / "scripts" / "requirements").glob("*.txt"))


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


def ros_imports(folder: Path) -> set[str]:
    """ROS packages that the code in a folder imports, also inside functions."""
    trees = [ast.parse(file.read_text()) for file in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = [
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    ]
    modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {root for root in (module.split(".")[0] for module in modules) if ROS.fullmatch(root)}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_a_package_declares_the_ros_packages_it_imports(manifest):
    package = ElementTree.parse(manifest).getroot()
    declared = {element.text for element in package if element.tag.endswith("depend")}
    imported = ros_imports(manifest.parent)
    imported.discard(manifest.parent.name)
    imported.discard("launch")  # comes with launch_ros
    assert imported - declared == set()


def test_every_source_folder_is_a_package():
    folders = {file.parent for file in ROOT.glob("ros2_ws/src/*/dexgrasp_*/**/*.py")}
    assert folders
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_exact(file):
    lines = file.read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.match(r"[\w.-]+==[\w.+]+( ; .+)?$", line)] == []
