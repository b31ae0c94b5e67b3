import argparse
import json

import pytest

from dexgrasp_learner.commands import inspection as inspect
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.specs import TensorSpec, schema_hash
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import GROUPS, observation_spec

ROBOT = load_robot()
JOINT_NAMES = ROBOT.joint_names


def call(capsys, *arguments):
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    assert inspect.run(parser.parse_args([str(argument) for argument in arguments])) == 0
    return capsys.readouterr().out


def test_robot_as_json(capsys):
    values = json.loads(call(capsys, "robot", "--json"))
    assert values["joint_names"] == list(JOINT_NAMES)
    assert values["upper_rad"] == ROBOT.upper.tolist()
    assert values["velocity_limit_rad_s"] == ROBOT.velocity_limit.tolist()
    assert values["total_mass_kg"] == pytest.approx(ROBOT.total_mass)
    # the published home pose of the palm
    assert values["palm_xyz"] == pytest.approx([-0.6868, 0.0320, 0.6685], abs=1e-4)
    assert "palm_link" in values["frames"]


def test_robot_in_words_has_a_row_for_each_joint(capsys):
    lines = call(capsys, "robot").splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    for name in JOINT_NAMES:
        joint = ROBOT.joints[name]
        wanted = [joint.lower, joint.upper, joint.velocity, joint.effort]
        assert [float(cell) for cell in rows[name]] == pytest.approx(wanted, abs=5e-3)


def test_another_robot_is_described_by_its_name_or_its_file(capsys):
    robot = load_robot("franka_leap")
    values = json.loads(call(capsys, "robot", "--robot", robot.path, "--json"))
    assert values["file"] == str(robot.path)
    assert values["joint_names"] == list(robot.joint_names) != list(JOINT_NAMES)
    assert list(values["fingers"]) == [finger.name for finger in robot.fingers]
    named = json.loads(call(capsys, "robot", "--robot", "kuka_allegro", "--json"))
    assert named == json.loads(call(capsys, "robot", "--json"))
    with pytest.raises(ConfigError, match="'kuka' is not one of"):
        call(capsys, "robot", "--robot", "kuka")


def test_observations_as_json_are_the_specs_with_their_hash(capsys):
    values = json.loads(call(capsys, "observations", "--json"))
    specs = [TensorSpec.from_dict(group) for group in values["groups"]]
    assert specs == [observation_spec(GraspConfig(), group) for group in GROUPS]
    assert values["schema_hash"] == schema_hash(specs)


def test_observations_in_words_name_every_term(capsys):
    text = call(capsys, "observations")
    for group in GROUPS:
        spec = observation_spec(GraspConfig(), group)
        assert group in text and "x".join(map(str, spec.shape)) in text
        for term in spec.terms:
            assert term.name in text


def test_observations_come_with_the_names_of_the_action(capsys, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("task: {action: {kind: fabric, dimensions: [palm_y, hand_2]}}\n")
    action = json.loads(call(capsys, "observations", "--config", path, "--json"))["action"]
    assert action == {"kind": "fabric", "names": ["palm_y", "hand_2"]}
    text = call(capsys, "observations", "--config", path)
    assert "fabric" in text and "hand_2" in text and "palm_goal_axes_x_y" in text
    assert "palm_yaw" in call(capsys, "observations")


def test_observations_of_a_run_config(capsys, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "name: mine\ntask:\n  action: {dimensions: [palm_x, palm_z]}\n"
        "  camera: {width: 64, height: 48}\n"
    )
    values = json.loads(call(capsys, "observations", "--config", path, "--json"))
    groups = {group["name"]: group for group in values["groups"]}
    assert groups["depth"]["shape"] == [48, 64]
    terms = {term["name"]: term["size"] for term in groups["proprio"]["terms"]}
    assert terms["last_action"] == 2
    assert (
        values["schema_hash"] != json.loads(call(capsys, "observations", "--json"))["schema_hash"]
    )


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        ("task: {control_herz: 3}", "unknown key `task.control_herz`"),
        ("task: {spawn: {yaw_rad: 7}}", "`task.spawn.yaw_rad` = 7"),
        ("tusk: {}", "unknown key `tusk`"),
        ("training: {horizon: 0}", "`training.horizon` = 0"),
        ("task:\n", "None"),
        ("task: [1]", r"\[1\]"),
        ("- 1", "mapping"),
    ],
)
def test_a_wrong_config_is_a_config_error_that_names_the_file(capsys, tmp_path, content, needle):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=needle) as error:
        call(capsys, "observations", "--config", path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="No such file"):
        call(capsys, "observations", "--config", tmp_path / "none.yaml")


def test_an_unknown_subject_is_refused_with_the_choices(capsys):
    with pytest.raises(SystemExit):
        call(capsys, "weather")
    assert "observations" in capsys.readouterr().err


def test_a_bundle_is_described_after_all_of_it_was_checked(capsys, small):
    folder = small[0]
    values = json.loads(call(capsys, "bundle", folder, "--json"))
    manifest = read_manifest(folder)
    assert values["bundle_id"] == manifest.bundle_id and values["files"] == manifest.files
    assert values["groups"] == {"proprio": list(small[2]["proprio"].shape), "depth": [24, 32]}
    assert values["objects"] == {"count": 3, "package_set": "laptop", "meshes": {}}
    assert values["origin"]["commit"] == "c0ffee" and values["evaluations"] == []
    text = call(capsys, "bundle", folder)
    assert f"bundle {manifest.bundle_id}" in text and "all as exported" in text
    assert "measured  never; export with --evaluate" in text and "commit c0ffee" in text


@pytest.mark.parametrize("arguments", [["bundle"], ["robot", "here"]])
def test_only_a_bundle_has_a_path(arguments):
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    with pytest.raises(ConfigError, match=f"^inspect {arguments[0]}: "):
        inspect.run(parser.parse_args(arguments))
