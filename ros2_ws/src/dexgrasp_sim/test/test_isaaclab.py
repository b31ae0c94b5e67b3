"""What concerns Isaac Lab alone; `test_engine_contract.py` has what all backends must do."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trimesh

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.foreign_python import environment_for
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.objects.sets import object_set
from dexgrasp_sim.physics.backends import make_engine
from dexgrasp_sim.physics.isaaclab.messages import scene_from_text, scene_to_text
from dexgrasp_sim.physics.isaaclab.start import has_isaaclab, isaac_python
from dexgrasp_sim.vision.image_config import LookConfig
from engine_lab import COMPILES, CONFIG, PREGRASP, ROBOT, Lab, on, poses, put, rest, start, upright

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "ros2_ws/src/dexgrasp_sim/dexgrasp_sim/physics/isaaclab"
CHECKED = ("engine", "looks", "parameters", "simulation", "views")
"""Modules that use Isaac Lab; `assets.py` uses pxr alone, whose stubs return None everywhere."""
MISUSE = """\
from isaaclab.assets import Articulation, RigidObject
from isaaclab.sensors import Camera, TiledCam
from isaaclab.sim import SimulationCfg, SimulationContext
from isaaclab_newton.physics import MJWarpSolverCfg


def misuse(robot: Articulation, item: RigidObject, camera: Camera, sim: SimulationContext) -> None:
    SimulationCfg(time_step=0.01)
    MJWarpSolverCfg(cone=3)
    print(robot.data.joint_positions, camera.data.outputs)
    robot.write_joint_positions_to_sim(position=0)
    item.set_masses_index(mass=1.0)
    sim.stepp()
"""
MISTAKES = [(2, "TiledCam"), (8, "time_step"), (9, "cone"), (10, "joint_positions")]
MISTAKES += [(10, "joint_positions"), (10, "outputs"), (11, "write_joint_positions_to_sim")]
MISTAKES += [(12, "masses"), (12, "mass"), (13, "stepp")]
"""Line and a word of each diagnostic that the misuse must yield, no more and no fewer."""
slow = pytest.mark.slow


@pytest.fixture
def isaac():
    lab = Lab("isaaclab")
    yield lab
    lab.close()


def configured(**settings):
    physics = dataclasses.replace(CONFIG.physics, backend="isaaclab")
    own = dataclasses.replace(physics.isaaclab, **settings)
    return dataclasses.replace(CONFIG, physics=dataclasses.replace(physics, isaaclab=own))


@pytest.mark.skipif(has_isaaclab(), reason="this interpreter has Isaac Lab")
def test_without_its_environment_the_remedy_is_named(tmp_path):
    absent = tmp_path / "python"
    with pytest.raises(ConfigError, match=rf"no {absent}; run `make setup-isaac`") as error:
        make_engine(configured(python=str(absent)).scene(1))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(has_isaaclab(), reason="this interpreter has Isaac Lab")
def test_on_a_gpu_the_workers_interpreter_is_named():
    task = configured(python=sys.executable)
    with pytest.raises(ConfigError, match=rf"set simulators.python: {sys.executable}"):
        make_engine(task.scene(1), "cuda:0")


@pytest.mark.skipif(has_isaaclab(), reason="this interpreter has Isaac Lab")
def test_an_interpreter_without_isaac_lab_is_an_error_with_its_last_words():
    task = configured(python=sys.executable)
    with pytest.raises(ConfigError, match=r"its process has ended; .*No module named") as error:
        make_engine(task.scene(1))
    assert "\n" not in str(error.value)


def test_a_scene_is_the_same_after_its_way_to_the_process(tmp_path):
    path = tmp_path / "box.stl"
    trimesh.creation.box((0.06, 0.06, 0.06)).export(path)
    objects = (*object_set("train")[::20], ObjectConfig("own", "mesh", path=path))
    scene = dataclasses.replace(CONFIG, objects=objects).scene(3, 1)
    arrived = scene_from_text(scene_to_text(scene))
    for field in dataclasses.fields(scene):
        assert getattr(arrived, field.name) == getattr(scene, field.name), field.name


def test_another_interpreter_sees_neither_ros_nor_this_ones_libraries(monkeypatch):
    names = ("ROS_DISTRO", "RMW_IMPLEMENTATION", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH")
    for name in (*names, "PYTHONPATH", "PYTHONHOME"):
        monkeypatch.setenv(name, "/opt/ros/jazzy")
    other = environment_for("/somewhere/else/python")
    assert not set(names) & set(other) and "PYTHONHOME" not in other
    assert (Path(other["PYTHONPATH"]) / "dexgrasp_sim" / "worker").is_dir()
    assert "ROS_DISTRO" in environment_for("")


@slow
@COMPILES
def test_looks_that_cannot_be_drawn_are_refused(isaac):
    engine = isaac.engine(count=1, look=LookConfig(color=0.5, light_rad=0.1))
    with pytest.raises(ConfigError, match=r"the colours of.* alone.*mujoco_warp") as error:
        engine.randomize_looks(torch.tensor([0]), torch.tensor([1]))
    assert "\n" not in str(error.value)


@slow
@COMPILES
def test_other_views_than_those_of_the_task_are_refused(isaac):
    engine = isaac.engine(count=1)
    camera = dataclasses.replace(CONFIG.camera, width=2 * CONFIG.camera.width)
    with pytest.raises(ConfigError, match=r"draws colour images of the task's camera only"):
        engine.render_rgb(camera, torch.zeros(1, 3, camera.height, camera.width))


@slow
@COMPILES
def test_a_killed_process_is_an_error_and_leaves_nothing(isaac):
    engine = start(isaac.engine(count=1))
    if has_isaaclab():
        pytest.skip("the engine is in this process")
    os.kill(engine._process.pid, signal.SIGKILL)
    with pytest.raises(ConfigError, match="its process has ended"):
        rest(engine)
    assert engine._process.returncode == -signal.SIGKILL
    engine.close()


@slow
@COMPILES
def test_servos_and_contacts_are_those_of_mujoco(isaac):
    """Both engines get the same targets, near the pregrasp and with objects that fall."""
    reference = Lab("mujoco")
    engines = [put(lab.engine(), upright(0.4, 3)) for lab in (reference, isaac)]
    for step in range(20):
        target = PREGRASP + 0.15 * torch.sin(torch.tensor(0.3 * step))
        for engine in engines:
            engine.step(on(engine, target.repeat(3, 1)))
        joints = [engine.joint_position for engine in engines]
        assert torch.allclose(*joints, atol=1e-2), step  # at their limits; else 1e-4
        if step not in range(3, 12):  # while they land
            fallen = [engine.object_position[:, 2] for engine in engines]
            assert torch.allclose(*fallen, atol=2e-3), step
    reference.close()


@slow
@COMPILES
def test_depth_is_that_of_mujoco(isaac):
    """Round objects of this set are meshes there: at their edges one sees past them."""
    reference = Lab("mujoco")
    images = [put(lab.engine(), poses(3)).depth_m() for lab in (reference, isaac)]
    seen = [(image > 0) & (image < 2.0) for image in images]
    assert seen[0].any()
    both = seen[0] & seen[1]
    assert both.sum() > 0.98 * seen[0].sum()
    error = (images[0] - images[1])[both].abs()
    assert (error > 1e-3).float().mean() < 0.02
    assert error.median() < 1e-5
    reference.close()


@slow
def test_every_joint_has_a_drive_in_its_file(tmp_path):
    """By USD's own reading of it, in Isaac Lab's environment."""
    script = f"""
import json
from pathlib import Path
from pxr import Usd, UsdPhysics
from dexgrasp_sim.physics.isaaclab.assets import write_robot
from dexgrasp_sim.robot.robot import load_robot
robot = load_robot()
path = write_robot(robot, robot.gains["stiff"], Path({str(tmp_path)!r}))
drives = {{}}
stage = Usd.Stage.Open(str(path))
for prim in stage.Traverse():
    if prim.IsA(UsdPhysics.RevoluteJoint):
        drive = UsdPhysics.DriveAPI(prim, "angular")
        values = drive.GetStiffnessAttr(), drive.GetDampingAttr(), drive.GetMaxForceAttr()
        drives[prim.GetName()] = [value.Get() for value in values]
print(json.dumps(drives))
"""
    drives = json.loads(in_isaac("-c", script).splitlines()[-1])
    gains = ROBOT.gains["stiff"]
    assert set(drives) == set(ROBOT.joint_names)
    for index, name in enumerate(ROBOT.joint_names):
        stiffness, damping, effort = drives[name]
        per_degree = torch.pi / 180
        assert stiffness == pytest.approx(gains.stiffness[index] * per_degree, rel=1e-5), name
        assert damping == pytest.approx(gains.damping[index] * per_degree, rel=1e-5), name
        assert effort == pytest.approx(ROBOT.joints[name].effort), name


@slow
def test_the_code_fits_the_types_of_isaac_lab(tmp_path):
    """With a negative control: a file with mistakes, all of which must be found."""
    control = tmp_path / "control.py"
    control.write_text(MISUSE)
    files = [*(FOLDER / f"{name}.py" for name in CHECKED), control]
    found = diagnostics(tmp_path, files)
    mistakes = sorted((line, text) for path, line, text in found if path == str(control))
    assert [line for line, _ in mistakes] == [line for line, _ in MISTAKES], mistakes
    for (_, text), (_, word) in zip(mistakes, MISTAKES):
        assert word in text
    assert [entry for entry in found if entry[0] != str(control)] == []


def diagnostics(folder, files):
    """(path, line from 1, text) of what pyright finds with the packages of Isaac Lab."""
    source = FOLDER.parents[2]
    settings = {
        "include": [os.path.relpath(file, folder) for file in files],  # pyright takes no others
        "extraPaths": [str(source)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "basic",
        "reportPrivateImportUsage": False,
    }
    config = folder / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "-p", str(config)]
    result = subprocess.run(
        [*command, "--pythonpath", python_of_isaac()],
        capture_output=True,
        text=True,
        timeout=280,
    )
    report = json.loads(result.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files)
    return [
        (entry["file"], entry["range"]["start"]["line"] + 1, entry["message"])
        for entry in report["generalDiagnostics"]
    ]


def in_isaac(*arguments):
    """What the interpreter with Isaac Lab prints."""
    python = python_of_isaac()
    result = subprocess.run(
        [python, *arguments],
        env=environment_for(python),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def python_of_isaac():
    try:
        return isaac_python()
    except ConfigError as error:
        pytest.skip(str(error))
