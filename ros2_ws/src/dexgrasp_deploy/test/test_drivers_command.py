"""`dexgrasp drivers` lists what exists, from the classes that read the parameters."""

import json

import pytest

from dexgrasp_deploy.commands.cli import main
from dexgrasp_deploy.drivers.registry import (
    BUILT_IN,
    KINDS,
    driver_config,
    make_driver,
    profiles,
    read_profiles,
)
from dexgrasp_sim.config import ConfigError


def listed(capsys, *arguments):
    assert main(["drivers", *arguments]) == 0
    return capsys.readouterr().out


def test_json_has_every_driver_and_profile_with_its_parameters(capsys):
    found = json.loads(listed(capsys, "--json"))
    names = {(entry["kind"], entry["name"]) for entry in found}
    assert names == {(kind, name) for kind in KINDS for name in BUILT_IN[kind]} | {
        (profile.kind, profile.name) for profile in profiles()
    }
    assert {"lbr", "franka", "wonik_ros2", "wonik_v5", "leap", "dextrah"} <= {n for _, n in names}
    for entry in found:
        assert entry["summary"]
        for parameter in entry["parameters"]:
            assert parameter["name"].startswith(f"{entry['kind']}.")
            assert parameter["type"]
            assert parameter["meaning"], parameter["name"]


def test_a_profile_is_listed_with_its_values(capsys):
    (lbr,) = json.loads(listed(capsys, "lbr", "--json"))
    defaults = {key["name"]: key["default"] for key in lbr["parameters"]}
    assert lbr["driver"] == "ros2_control"
    assert lbr["source"].startswith("github.com/lbr-stack")
    assert defaults["arm.joint_names"][0] == "lbr_A1"
    assert defaults["arm.state.topic"] == "/lbr/joint_states"
    assert defaults["arm.command.qos.reliability"] == "reliable"
    assert defaults["arm.connect_timeout_s"] == 5.0
    (timeout,) = (k for k in lbr["parameters"] if k["name"] == "arm.timeout_s")
    assert (timeout["unit"], timeout["type"]) == ("s", "number > 0")


def test_text(capsys):
    overview = listed(capsys)
    assert "camera.driver\n" in overview
    assert "realsense " in overview
    text = listed(capsys, "wonik_v5")
    assert 'default "/allegroHand/joint_cmd"' in text
    assert "default 3" in text


def test_an_unknown_name_is_refused(capsys):
    assert main(["drivers", "kuka"]) == 2
    assert "no driver or profile 'kuka'; there are mock, sim" in capsys.readouterr().err


@pytest.mark.parametrize("profile", profiles(), ids=lambda p: f"{p.kind}-{p.name}")
def test_every_profile_fits_its_driver_and_says_its_source(profile):
    driver = make_driver(profile.kind, profile.name)
    assert driver.kind == profile.kind
    assert driver.profile == profile.values
    assert profile.summary and profile.source


def test_parameters_lie_on_top_of_a_profile():
    config_class = BUILT_IN["hand"]["ros2_control"].config
    (profile,) = (p for p in profiles() if p.name == "wonik_v5")
    given = {"driver": "wonik_v5", "command.qos.depth": 7, "state.topic": "/allegroHand_1/joints"}
    config = driver_config(config_class, "hand", given, profile.values)
    assert config.command.qos.depth == 7
    assert config.command.qos.reliability == "reliable"
    assert config.state.topic == "/allegroHand_1/joints"
    assert config.state.effort is False


def test_a_profile_of_the_user(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("arm: {joint_names: [a], command: {topic: /a}}\n")
    assert make_driver("arm", str(path)).profile["joint_names"] == ["a"]
    with pytest.raises(ConfigError, match=r"lab.yaml.*has arm and no hand"):
        make_driver("hand", str(path))
    path.write_text("foot: {}\n")
    with pytest.raises(ConfigError, match="has foot; a profile has arm, hand or camera"):
        read_profiles(path)
