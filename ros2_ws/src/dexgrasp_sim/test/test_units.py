"""Numbers that cannot be are refused by the unit that their key ends with."""

import math

import pytest

from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.config_keys import REQUIRED, config_keys, documented, type_text
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.robot.robot_file import RobotFile
from dexgrasp_sim.schedules import PositiveRamp, Schedule
from dexgrasp_sim.tasks.grasp.config import GraspConfig, SpawnConfig
from dexgrasp_sim.units import NO_UNIT, implausible, unit_of


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("yaw_rad", "rad"),
        ("palm_speed_m_s", "m/s"),
        ("yaw_rate_rad_s", "rad/s"),
        ("arm_jerk_rad_s3", "rad/s3"),
        ("goal_sharpness_per_m", "1/m"),
        ("density_kg_m3", "kg/m3"),
        ("approach_sharpness_s_rad", "s/rad"),
        ("max_minutes", "min"),
        ("control_hz", "Hz"),
        ("episode_s", "s"),
        ("spin_us", "us"),
        ("steps", "steps"),
        ("horizon", ""),
        ("gamma", ""),
        ("dropout_share", ""),
    ],
)
def test_the_unit_is_the_longest_end_of_the_name(name, symbol):
    assert unit_of(name).symbol == symbol


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"episode_s": 1e300}, ["`episode_s` = 1e+300", "at most 1e+06 s"]),
        ({"control_hz": 1e-9}, ["control_hz"]),
        (
            {"physics": {"timestep_s": 1e-9}},
            ["1 to 1000 of physics", "`physics.timestep_s`"],
        ),
        ({"goal_height_m": 1e9}, ["`goal_height_m` = 1000000000.0", "at most 1000 m"]),
        ({"spawn": {"center_m": [-550, 100000]}}, ["spawn"]),
        ({"action": {"palm_speed_m_s": 3e8}}, ["`action.palm_speed_m_s`", "at most 1000 m/s"]),
        (
            {"latency": {"action_delay_s": {"initial": [0, 1e9]}}},
            ["`latency.action_delay_s.initial.1`", "at most 1e+06 s"],
        ),
        (
            {"action": {"kind": "fabric", "damping_per_s": 1e12}},
            ["`action.damping_per_s` = 1000", "at most 1e+06 1/s"],
        ),
        ({"reward": {"weights": {"goal": 1e31}}}, ["goal", "at most 1e+30"]),
        ({"physics": {"friction": math.inf}}, ["`physics.friction` = inf", "finite"]),
        ({"difficulty": math.nan}, ["`difficulty` = nan"]),
    ],
)
def test_an_absurd_number_is_refused_by_name(values, words):
    with pytest.raises(ConfigError) as error:
        parse_config(GraspConfig, values)
    for word in words:
        assert word in str(error.value)


def test_more_physics_steps_than_make_sense_are_refused():
    values = {"control_hz": 0.1, "physics": {"timestep_s": 0.001}}
    with pytest.raises(ConfigError, match=r"from 1 to 1000 of physics steps .*\(10000\.000\)"):
        parse_config(GraspConfig, values)


def test_plausible_numbers_are_those_in_the_range_and_zero():
    metre = unit_of("size_m")
    assert not implausible(metre.largest, metre) and not implausible(-1.0, metre)
    assert "at most 1000 m" in implausible(-1001.0, metre)
    assert not implausible(0.0, unit_of("control_hz")) and implausible(1e-6, unit_of("control_hz"))
    assert not implausible(1e-200, NO_UNIT) and implausible(1e31, NO_UNIT)


@pytest.mark.parametrize("config", [GraspConfig(), FabricConfig()])
def test_the_defaults_of_the_keys_are_those_of_the_config(config):
    values = to_dict(config)
    found = 0
    for key in config_keys(config):
        if "[]" in key.name or "(kind: fabric)" in key.meaning:
            continue
        inner = values
        for part in key.name.split("."):
            inner = inner[part]
        assert key.default == inner, key.name
        found += 1
    assert found > 30


def test_a_key_that_must_be_given_says_so():
    keys = {key.name: key for key in config_keys(GraspConfig())}
    assert keys["objects[].name"].default == REQUIRED
    assert keys["objects[].density_kg_m3"].default == 500.0
    assert keys["objects[].parts[].position_m"].default == [0.0, 0.0, 0.0]


def test_types_are_told_in_words():
    keys = {key.name: key.type for key in config_keys(SpawnConfig())}
    assert keys["yaw_rad"] == "number >= 0 and <= 3.14159"
    assert keys["center_m"] == "[number, number]"
    assert keys["height_m"] == "number > 0 or null"
    assert type_text(Schedule) == "{initial: [low, high], final: [low, high]}"
    assert type_text(PositiveRamp) == "number or {initial: number, final: number}"
    weights = {key.name: key.type for key in config_keys(GraspConfig())}["reward.weights"]
    assert weights == "mapping of names to number or {initial: number, final: number}"


def test_a_meaning_may_have_several_lines():
    assert documented(SpawnConfig)["height_m"].startswith("Height from which")
    assert "starts just above it." in documented(SpawnConfig)["height_m"]
    assert documented(RobotFile)["arm"]
