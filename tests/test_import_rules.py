"""Who may import what; the rules hold for imports inside functions too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARROW = ("dexgrasp_msgs", "dexgrasp_sim", "dexgrasp_learner", "dexgrasp_deploy")
LEVELS = (
    (
        *(
            "config",
            "devices",
            "device_graphs",
            "kernels",
            "linear_algebra",
            "random_streams",
            "random_streams_warp",
            "schedules",
            "warp_streams",
        ),
        *("arguments", "config_keys", "specs", "units", "version", "yaml_file"),
    ),
    ("foreign_python", "stop_signals", "streams"),
    ("robot",),
    ("control", "vision"),
    ("objects",),
    ("physics",),
    ("vec_env",),
    ("synthetic_env", "tasks"),
    ("environments",),
    ("transport", "worker"),
    ("bringup", "nodes", "ros_environment", "ros_settings", "view"),
)
"""The rooms of dexgrasp_sim, bottom first: none imports from a higher level."""
MUJOCO = "dexgrasp_sim.physics.mujoco"
SIM, LEARNER, DEPLOY = (f"{name}/{name}" for name in ARROW[1:])
SPEAK_MUJOCO = tuple(
    f"{SIM}/physics/{folder}/" for folder in ("mujoco", "mujoco_warp", "cpu_render")
)
PEERS = "benchmarks/peers/"
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def imported_names(tree: ast.AST, package: list[str]):
    """Line and full name of everything that a module of a package imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def level_of(name: str) -> int:
    """Level of a module of dexgrasp_sim, a room that is in no level being at the top."""
    room = [*name.split("."), ""][1]
    return next((i for i, rooms in enumerate(LEVELS) if room in rooms), len(LEVELS))


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


def named_modules(tree: ast.AST):
    """Line and text of every string that begins like a module of the MuJoCo backend."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and str(node.value).startswith(MUJOCO):
            yield node.lineno, node.value


def breaks_a_rule(path: Path, name: str) -> bool:
    """Whether a file must not import a name; its path is as for `violations`."""
    package, *folders = path.parts[:-1]
    is_test = "test" in folders
    root = name.split(".")[0]
    if package in ARROW and root in ARROW and ARROW.index(root) > ARROW.index(package):
        return True
    if is_test:
        return False
    speaks_ros = package not in ARROW or "nodes" in folders or "launch" in folders
    is_ros = root in ("rclpy", "launch", "launch_ros") or root.endswith("_msgs")
    if root in UNSAFE or (is_ros and not speaks_ros):
        return True
    if root == "mujoco":
        return not path.as_posix().startswith((*SPEAK_MUJOCO, PEERS))
    if f"{name}.".startswith(f"{MUJOCO}."):
        return not path.as_posix().startswith((*SPEAK_MUJOCO[:2], PEERS))
    if root == "dexgrasp_sim" and folders[:1] == ["dexgrasp_sim"]:
        own = ".".join([*folders, path.stem])
        return own != "dexgrasp_sim.__init__" and level_of(name) > level_of(own)
    return False


def violations(path: Path, source: str) -> list[str]:
    """What a file does against the rules.

    Args:
        path: Relative to ros2_ws/src, or to the repository for what is not in there.
        source: Text of the file.
    """
    package, *folders = path.parts[:-1]
    tree = ast.parse(source)
    found = [f"{path}:{line} {what}" for line, what in unsafe_loads(tree)]
    own = folders if package in ARROW else [package, *folders]
    found += [
        f"{path}:{line} imports {name}"
        for line, name in imported_names(tree, own)
        if breaks_a_rule(path, name)
    ]
    if path.as_posix() != f"{SIM}/physics/backends.py" and "test" not in folders:
        found += [f"{path}:{line} names {name}" for line, name in named_modules(tree)]
    return found


def sources():
    """Path for `violations` and text of all files."""
    for top, pattern in (
        (ROOT / "ros2_ws" / "src", "dexgrasp_*/**/*.py"),
        (ROOT, "benchmarks/**/*.py"),
        (ROOT, "scripts/*.py"),
    ):
        files = sorted(top.glob(pattern))
        assert files, pattern
        yield from ((file.relative_to(top), file.read_text(encoding="utf-8")) for file in files)


def test_the_code_keeps_the_rules():
    assert [found for file in sources() for found in violations(*file)] == []


def test_every_room_has_its_level():
    package = ROOT / "ros2_ws" / "src" / "dexgrasp_sim" / "dexgrasp_sim"
    rooms = {path.stem for path in package.glob("*.py")} - {"__init__"}
    rooms |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(rooms) == sorted(room for level in LEVELS for room in level)


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
        (f"{SIM}/tasks/physics/mujoco/env.py", "import mujoco"),
        (f"{SIM}/physics/scene.py", "import mujoco"),
        (f"{SIM}/physics/cpu_render_gl/renderer.py", "def f():\n    import mujoco"),
        ("benchmarks/sim.py", "from mujoco.batch import Batch"),
        ("benchmarks/sim.py", "import dexgrasp_sim.physics.mujoco.batch"),
        ("scripts/compute_hand_pca.py", "import pickle"),
        (f"{SIM}/environments.py", "from dexgrasp_sim.physics.mujoco.batch import MujocoBatch"),
        (f"{SIM}/environments.py", "from dexgrasp_sim.physics import mujoco"),
        (f"{SIM}/physics/cpu_render/looks.py", "from ..mujoco import models"),
        (f"{DEPLOY}/commands/doctor.py", "NEEDS = 'dexgrasp_sim.physics.mujoco.batch'"),
        (f"{SIM}/config.py", "from dexgrasp_sim.robot.robot import load_robot"),
        (f"{SIM}/robot/urdf.py", "import dexgrasp_sim.vision.camera"),
        (f"{SIM}/vision/camera.py", "from dexgrasp_sim import objects"),
        (f"{SIM}/control/fabric/config.py", "from dexgrasp_sim.physics.scene import Scene"),
        (f"{SIM}/objects/sets.py", "def f():\n    from dexgrasp_sim.physics import engine"),
        (f"{SIM}/physics/scene.py", "from ..tasks.grasp.config import GraspConfig"),
        (f"{SIM}/physics/engine.py", "import dexgrasp_sim.vec_env as envs"),
        (f"{SIM}/tasks/grasp/env.py", "from ...environments import make_env"),
        (f"{SIM}/synthetic_env.py", "from dexgrasp_sim.environments import make_env"),
        (f"{SIM}/environments.py", "from dexgrasp_sim.worker.process import serve"),
        (f"{SIM}/transport/tcp.py", "from dexgrasp_sim.view.panel import Panel"),
        (f"{SIM}/tasks/grasp/env.py", "from dexgrasp_sim.new_room import thing"),
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
        (f"{SIM}/physics/mujoco/mjcf.py", "import mujoco, dexgrasp_sim.physics.mujoco.models"),
        (f"{SIM}/physics/cpu_render/arrays.py", "import mujoco"),
        (f"{SIM}/physics/backends.py", "MODULE = 'dexgrasp_sim.physics.mujoco.batch'"),
        ("benchmarks/peers/bare_batch.py", "import mujoco, dexgrasp_sim.physics.mujoco.models"),
        (
            f"{SIM}/worker/process.py",
            "import dexgrasp_sim.environments, dexgrasp_sim.transport.tcp",
        ),
        (f"{SIM}/transport/tcp.py", "from dexgrasp_sim.worker.process import serve"),
        (f"{SIM}/tasks/grasp/env.py", "from . import config\nfrom ...physics.engine import X"),
        (f"{SIM}/physics/mujoco/models.py", "from dexgrasp_sim import kernels"),
        (f"{SIM}/nodes/sim_worker_node.py", "import rclpy\nfrom dexgrasp_msgs.msg import X"),
        ("dexgrasp_deploy/launch/mock.launch.py", "from launch_ros.actions import Node"),
        ("dexgrasp_sim/test/test_mjcf.py", "import mujoco, rclpy, pickle"),
        (f"{SIM}/specs.py", "from . import config"),
        (f"{LEARNER}/checkpoint.py", "torch.load(path, weights_only=True)"),
    ],
)
def test_what_is_allowed_is_not_found(path, source):
    assert violations(Path(path), source) == []
