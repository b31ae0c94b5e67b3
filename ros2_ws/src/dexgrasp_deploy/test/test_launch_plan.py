"""One list of nodes for all modes; they differ in their drivers."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dexgrasp_deploy.commands.up import add_arguments
from dexgrasp_deploy.control.control_loop import ControlConfig
from dexgrasp_deploy.parameter_file import with_parameter_file
from dexgrasp_deploy.processes import MODES, deploy_nodes, episode_node
from dexgrasp_sim.arguments import Parser
from dexgrasp_sim.config import ConfigError, parse_config

HARDWARE = {"arm": "lab:Arm", "hand": "lab:Hand", "camera": "lab:Camera"}
PACKAGE = Path(__file__).parents[1]


def driver_free(node):
    values = {key: v for key, v in node.parameters.items() if not key.endswith(".driver")}
    return replace(node, parameters={**values, "autostart": None})


def recorders_of(plan):
    return [node for node in plan if node.name == "recorder_node"]


def test_modes_differ_in_driver_lines_and_autostart_only():
    plans = [
        deploy_nodes(mode, "bundle", HARDWARE, record="out", calibration="none") for mode in MODES
    ]
    names = [[node.name for node in plan] for plan in plans]
    assert names[0] == [
        *("robot_driver_node", "camera_node", "policy_node", "display_node", "recorder_node")
    ]
    assert names[0] == names[1] == names[2]
    bare = [[driver_free(node) for node in plan] for plan in plans]
    assert bare[0] == bare[1] == bare[2]
    drivers = [plan[0].parameters["arm.driver"] for plan in plans]
    assert drivers == ["mock", "sim", "lab:Arm"]
    assert [plan[2].parameters["autostart"] for plan in plans] == [True, True, False]


def test_a_real_robot_has_a_black_box_also_when_nothing_is_recorded(tmp_path):
    recorders = [
        recorders_of(deploy_nodes(mode, "bundle", HARDWARE, calibration="none")) for mode in MODES
    ]
    assert [len(found) for found in recorders] == [0, 0, 1]
    assert recorders[2][0].parameters == {"record": False}
    for mode in MODES:
        plan = deploy_nodes(
            mode, "bundle", HARDWARE, shadow=True, record=tmp_path, calibration="none"
        )
        [recorder] = recorders_of(plan)
        assert recorder.parameters == {"record": True, "folder": str(tmp_path)}
        assert plan[2].parameters["shadow"] is plan[3].parameters["shadow"] is True


def test_nothing_is_recorded_unless_asked_for():
    parser = Parser()
    add_arguments(parser)
    for extra, recorders in (([], 0), (["--record", "out"], 1)):
        args = parser.parse_args(["mock", "--bundle", "bundle", *extra])
        plan = deploy_nodes(args.mode, args.bundle, record=args.record)
        assert len(recorders_of(plan)) == recorders


def test_every_node_is_a_module_and_a_console_script():
    scripts = (PACKAGE / "setup.py").read_text()
    for node in (*deploy_nodes("sim", "bundle", record="out"), episode_node("sim", "bundle", 1)):
        assert importlib.util.find_spec(node.module) is not None
        program = f"{node.package}.nodes.programs:{node.executable}"
        assert f'"{node.executable} = {program}"' in scripts


def test_wrong_plans_are_refused():
    with pytest.raises(ConfigError, match="'gazebo' is not one of mock, sim, hardware"):
        deploy_nodes("gazebo", "bundle")
    with pytest.raises(ConfigError, match=r"hardware needs hand\.driver, camera\.driver"):
        deploy_nodes("hardware", "bundle", {"arm": "lab:Arm"})


def test_hardware_needs_a_calibration_or_to_be_told_that_there_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"calibration:=FOLDER .* or calibration:=none"):
        deploy_nodes("hardware", "bundle", HARDWARE)
    with pytest.raises(ConfigError, match=r"no extrinsics\.yaml here; make it with `dexgrasp cal"):
        deploy_nodes("hardware", "bundle", HARDWARE, calibration=tmp_path)


def test_only_drivers_that_rectify_get_the_lenses_of_a_calibration(tmp_path):
    for name in ("extrinsics", "left", "left_report", "right"):
        (tmp_path / f"{name}.yaml").touch()
    for camera, lenses in (("opencv", True), ("zed", True), ("lab:Camera", False)):
        drivers = {**HARDWARE, "camera": camera}
        plan = deploy_nodes("hardware", "bundle", drivers, calibration=tmp_path)
        files = {k: v for k, v in plan[1].parameters.items() if ".calibration." in k}
        wanted = ("extrinsics", "left", "right") if lenses else ("extrinsics",)
        assert plan[3].parameters["extrinsics"] == str(tmp_path / "extrinsics.yaml")
        assert plan[4].parameters["calibration"] == str(tmp_path), "it goes with every recording"
        assert files == {f"camera.calibration.{n}": str(tmp_path / f"{n}.yaml") for n in wanted}


@pytest.mark.parametrize("mode", MODES)
def test_parameter_files_of_the_package_fit(mode):
    plan = deploy_nodes(mode, "bundle", HARDWARE, calibration="none")
    nodes = with_parameter_file(plan, PACKAGE / "config" / f"{mode}.yaml")
    own = {"bundle", "autostart"}
    policy: dict[str, Any] = {}
    for name, value in nodes[2].parameters.items():
        *above, key = name.split(".")
        place = policy
        for part in above:
            place = place.setdefault(part, {})
        if name not in own:
            place[key] = value
    parse_config(ControlConfig, policy)
    assert (PACKAGE / "launch" / f"{mode}.launch.py").is_file()
