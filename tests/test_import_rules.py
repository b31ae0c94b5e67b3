"""Who may import what; the rules hold for imports inside functions too."""

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "ros2_ws" / "src"
ARROW = ("dexgrasp_msgs", "dexgrasp_sim", "dexgrasp_learner", "dexgrasp_deploy")
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def imported_modules(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""


def unsafe_loads(tree: ast.AST):
    """Calls that unpickle: torch.load without weights_only=True, anything with allow_pickle."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if given.get("allow_pickle", "False") != "False":
            yield node.lineno, "allow_pickle"
        if ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True":
            yield node.lineno, "torch.load without weights_only=True"


def violations(path: Path, source: str) -> list[str]:
    """What a file does against the rules.

    Args:
        path: Relative to ros2_ws/src.
        source: Text of the file.
    """
    package, *folders = path.parts[:-1]
    is_test = "test" in folders
    speaks_ros = "nodes" in folders or "launch" in folders
    in_physics = folders[:2] == ["dexgrasp_sim", "physics"]
    tree = ast.parse(source)
    found = [f"{path}:{line} {what}" for line, what in unsafe_loads(tree)]
    for line, module in imported_modules(tree):
        root = module.split(".")[0]
        against_arrow = root in ARROW and ARROW.index(root) > ARROW.index(package)
        is_ros = root in ("rclpy", "launch", "launch_ros") or root.endswith("_msgs")
        if (
            against_arrow
            or (root in UNSAFE and not is_test)  # a test may make the file that is to be refused
            or (is_ros and not speaks_ros and not is_test)
            or (root == "mujoco" and not in_physics and not is_test)
        ):
            found.append(f"{path}:{line} imports {module}")
    return found


def test_the_code_keeps_the_rules():
    files = sorted(SOURCES.rglob("*.py"))
    assert files
    found = [
        violation
        for file in files
        for violation in violations(file.relative_to(SOURCES), file.read_text(encoding="utf-8"))
    ]
    assert found == []


SIM, LEARNER, DEPLOY = (f"{name}/{name}" for name in ARROW[1:])


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (f"{SIM}/worker.py", "from dexgrasp_learner.run.runner import Runner"),
        (f"{LEARNER}/runner.py", "import dexgrasp_deploy.control.safety"),
        (f"{LEARNER}/nodes/learner_node.py", "import dexgrasp_deploy"),
        ("dexgrasp_sim/test/test_worker.py", "def test():\n    import dexgrasp_learner"),
        (f"{SIM}/worker.py", "import rclpy"),
        (f"{DEPLOY}/episode.py", "def f():\n    from sensor_msgs.msg import JointState"),
        (f"{DEPLOY}/episode.py", "import dexgrasp_msgs.msg as messages"),
        (f"{LEARNER}/runner.py", "from launch_ros.actions import Node"),
        (f"{SIM}/tasks/grasp/env.py", "import mujoco"),
        (f"{SIM}/tasks/physics/env.py", "import mujoco"),
        (f"{DEPLOY}/drivers/sim.py", "from mujoco.batch import Batch"),
        (f"{LEARNER}/checkpoint.py", "import json, pickle"),
        (f"{SIM}/physics/engine.py", "from pickle import loads"),
        (f"{LEARNER}/checkpoint.py", "torch.load(path)"),
        (f"{LEARNER}/checkpoint.py", "torch.load(path, weights_only=False)"),
        (f"{LEARNER}/checkpoint.py", "np.load(path, allow_pickle=True)"),
    ],
)
def test_a_violation_is_found(path, source):
    assert len(violations(Path(path), source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            f"{DEPLOY}/control_loop.py",
            "import dexgrasp_sim.specs, dexgrasp_learner.storage.bundle",
        ),
        (f"{SIM}/physics/mjcf.py", "import mujoco"),
        (f"{SIM}/nodes/sim_worker_node.py", "import rclpy\nfrom dexgrasp_msgs.msg import X"),
        ("dexgrasp_deploy/launch/mock.launch.py", "from launch_ros.actions import Node"),
        ("dexgrasp_sim/test/test_mjcf.py", "import mujoco, rclpy, pickle"),
        (f"{SIM}/specs.py", "from . import config"),
        (f"{LEARNER}/checkpoint.py", "torch.load(path, weights_only=True)"),
    ],
)
def test_what_is_allowed_is_not_found(path, source):
    assert violations(Path(path), source) == []
