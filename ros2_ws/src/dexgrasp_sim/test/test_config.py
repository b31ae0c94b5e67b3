import dataclasses
import importlib
import json
import math
import pkgutil
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass, is_pydantic_dataclass

import dexgrasp_sim
from dexgrasp_sim.config import (
    STRICT,
    ConfigError,
    load_config,
    parse_config,
    read_values,
    replace,
    to_dict,
)
from dexgrasp_sim.tasks.grasp.config import GraspConfig


@dataclass(frozen=True, config=STRICT)
class Motor:
    rate_hz: Annotated[float, Field(gt=0, le=1000)] = 10.0
    mode: Literal["fast", "slow"] = "fast"
    offset: float = 0.0


@dataclass(frozen=True, config=STRICT)
class Machine:
    count: int = 2
    name: str = "machine"
    motor: Motor = Motor()
    sizes: tuple[float, ...] = (1.0, 2.0)


def write(path, text):
    path.write_text(text)
    return path


def message_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_defaults_hold_where_the_file_is_silent(tmp_path):
    path = write(tmp_path / "run.yaml", "motor: {rate_hz: 1e-3}\nsizes: [3]\n")
    assert load_config(Machine, path) == Machine(motor=Motor(rate_hz=0.001), sizes=(3.0,))
    assert load_config(Machine, write(tmp_path / "empty.yaml", "# nothing\n")) == Machine()


@pytest.mark.parametrize(
    ("values", "needles"),
    [
        ({"motr": 1}, ["`motr`", "unknown key"]),
        ({"motor": {"rate": 1.0}}, ["`motor.rate`", "unknown key"]),
        ({"count": "two"}, ["`count` = 'two'", "integer"]),
        ({"count": 1.5}, ["`count` = 1.5", "integer"]),
        ({"sizes": [1, "x"]}, ["`sizes.1` = 'x'", "number"]),
        ({"motor": {"rate_hz": -2}}, ["`motor.rate_hz` = -2", "greater than 0"]),
        ({"motor": {"rate_hz": 1001}}, ["`motor.rate_hz` = 1001", "less than or equal to 1000"]),
        ({"motor": {"mode": "warp"}}, ["`motor.mode` = 'warp'", "'fast' or 'slow'"]),
        ({"motor": {"offset": math.nan}}, ["`motor.offset` = nan", "finite"]),
        ({"motor": {"offset": -math.inf}}, ["`motor.offset` = -inf", "finite"]),
        ({"motor": None}, ["`motor` = None"]),
        ({"motor": [1, 2]}, ["`motor` = [1, 2]"]),
        ({1: 2}, ["`1`", "Keys should be strings"]),
        (["count"], ["top level", "['count']"]),
    ],
)
def test_an_error_is_one_line_with_key_value_and_what_is_allowed(values, needles):
    with pytest.raises(ConfigError) as error:
        parse_config(Machine, values, source="run.yaml")
    message = message_of(error)
    assert message.startswith("run.yaml: ")
    for needle in needles:
        assert needle in message


def test_all_errors_are_named_at_once_and_long_values_are_cut():
    with pytest.raises(ConfigError) as error:
        parse_config(Machine, {"a": 1, "b": 2, "count": "x" * 1000})
    message = message_of(error)
    assert "`a`" in message and "`b`" in message and "`count`" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        (b"- 1\n- 2\n", "holds a list; a mapping is needed"),
        (b"just words\n", "holds a str"),
        (b"a: [1,\n  b: }\n", "not valid YAML"),
        (b"\xff\xfe\x00name: \xb0\n", "not valid YAML"),
        (b"base: 3\n", "`base` = 3"),
        (b"base: missing.yaml\n", "missing.yaml: cannot be read (No such file or directory)"),
        (b"base: [a.yaml, b.yaml]\n", "`base` = ['a.yaml', 'b.yaml']"),
        (b"!!python/object/apply:os.getpid []\n", "not valid YAML"),
    ],
)
def test_a_broken_file_is_a_config_error(tmp_path, content, needle):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(Machine, path)
    assert needle in message_of(error)
    assert str(tmp_path) in str(error.value)


def test_a_missing_file_or_a_folder_is_a_config_error(tmp_path):
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=reason) as error:
            load_config(Machine, path)
        assert str(path) in message_of(error)


def test_base_files_are_merged_key_by_key_and_relative_to_the_file(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "root.yaml", "count: 7\nmotor: {rate_hz: 5, mode: slow}\nsizes: [9, 9]\n")
    write(tmp_path / "deep" / "middle.yaml", "base: ../root.yaml\nmotor: {offset: 2}\n")
    top = write(tmp_path / "top.yaml", "base: deep/middle.yaml\nmotor: {rate_hz: 6}\nsizes: [1]\n")
    wanted = Machine(count=7, motor=Motor(rate_hz=6.0, mode="slow", offset=2.0), sizes=(1.0,))
    assert load_config(Machine, top) == wanted
    assert "base" not in read_values(top)


def test_base_loops_are_found(tmp_path):
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: c.yaml\n")
    write(tmp_path / "c.yaml", "base: a.yaml\n")
    write(tmp_path / "self.yaml", "base: ./self.yaml\n")
    for name in ("a.yaml", "self.yaml"):
        with pytest.raises(ConfigError, match="loop") as error:
            load_config(Machine, tmp_path / name)
        message_of(error)


def test_overrides_win_and_are_yaml(tmp_path):
    path = write(tmp_path / "run.yaml", "motor: {rate_hz: 5, mode: slow}\n")
    overrides = ["motor.rate_hz=1e-2", "count=4", "sizes=[1, 2.5]", "name=a=b", "motor.offset=-1"]
    assert load_config(Machine, path, overrides) == Machine(
        count=4, name="a=b", motor=Motor(0.01, "slow", -1.0), sizes=(1.0, 2.5)
    )
    assert load_config(Machine, path, ["count=3", "count=5"]).count == 5
    assert load_config(Machine, path, ["motor={mode: fast}"]).motor == Motor()


@pytest.mark.parametrize(
    ("override", "needle"),
    [
        ("count", "not of the form"),
        ("=3", "not of the form"),
        ("count.deeper=3", "`count` is a value, not a group"),
        ("count=[1", "not valid YAML"),
        ("counts=3", "`counts`"),
        ("motor.rate_hz=fast", "`motor.rate_hz` = 'fast'"),
        ("motor..rate_hz=1", "unknown key"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, needle):
    path = write(tmp_path / "run.yaml", "count: 1\n")
    with pytest.raises(ConfigError) as error:
        load_config(Machine, path, [override])
    assert needle in message_of(error)


def test_replace_validates_again():
    assert replace(Motor(), rate_hz=3.0) == Motor(rate_hz=3.0)
    with pytest.raises(ValidationError, match="greater than 0"):
        replace(Motor(), rate_hz=-1.0)


machines = st.builds(
    Machine,
    count=st.integers(-(2**40), 2**40),
    name=st.text(max_size=8),
    motor=st.builds(
        Motor,
        rate_hz=st.floats(1e-3, 1000),
        mode=st.sampled_from(["fast", "slow"]),
        offset=st.floats(-1e30, 1e30),
    ),
    sizes=st.lists(st.floats(-1e9, 1e9), max_size=4).map(tuple),
)


@given(machines)
def test_plain_values_parse_back_through_yaml_and_json(machine):
    values = to_dict(machine)
    assert parse_config(Machine, values) == machine
    assert parse_config(Machine, json.loads(json.dumps(values))) == machine
    assert parse_config(Machine, yaml.safe_load(yaml.safe_dump(values))) == machine


@given(
    st.sampled_from(["discrete", "implicitfast"]),
    st.floats(0.1, 5.0),
    st.floats(1.0, 10.0),
    st.sampled_from([("palm_x",), ("finger_closure", "palm_z", "palm_yaw")]),
)
def test_the_task_parses_back(integrator, friction, episode_s, dimensions):
    values = {
        "episode_s": episode_s,
        "physics": {"mujoco": {"integrator": integrator}, "friction": friction},
        "action": {"dimensions": list(dimensions)},
    }
    config = parse_config(GraspConfig, values)
    assert (config.physics.friction, config.action.dimensions) == (friction, dimensions)
    assert parse_config(GraspConfig, json.loads(json.dumps(to_dict(config)))) == config


def config_classes():
    """Every pydantic dataclass of the package outside its ROS nodes and what needs Isaac Lab."""
    for module_info in pkgutil.walk_packages(dexgrasp_sim.__path__, "dexgrasp_sim."):
        if ".nodes" in module_info.name or ".isaaclab." in module_info.name:
            continue
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if isinstance(value, type) and is_pydantic_dataclass(value):
                yield value


def test_every_config_dataclass_is_frozen_strict_and_hashable():
    classes = set(config_classes())
    assert GraspConfig in classes and len(classes) >= 8
    for config_class in classes:
        assert config_class.__pydantic_config__.get("extra") == "forbid", config_class
        assert config_class.__pydantic_config__.get("allow_inf_nan") is False, config_class
    config = GraspConfig()
    hash(config)
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, None)
    frozen = [c.__dataclass_params__.frozen for c in classes]  # type: ignore[attr-defined]
    assert all(frozen)


@pytest.mark.parametrize(
    ("values", "needles"),
    [
        ({"control_hz": 7}, ["control_hz 7.0", "17.143", "physics.timestep_s"]),
        ({"control_hz": math.inf}, ["`control_hz` = inf"]),
        ({"objects": []}, ["at least one object"]),
        ({"objects": [{"name": "a", "shape": "sphere", "size_m": [0.1]}] * 2}, ["unique"]),
        ({"episode_s": 0.3}, ["episode_s 0.3", "hold_s 0.5"]),
        ({"episode_s": 0.01, "success": {"hold_s": 0.01}}, ["episode_s 0.01"]),
        ({"table": {"size_m": [1, 0, 1]}}, ["`table.size_m.1` = 0", "greater than 0"]),
        ({"spawn": {"yaw_rad": 4}}, ["`spawn.yaw_rad` = 4"]),
        ({"spawn": {"half_width_m": [0.1, -0.1]}}, ["`spawn.half_width_m.1` = -0.1"]),
        ({"physics": {"mujoco": {"line_search_iterations": 5}}}, ["equal to 20"]),
        ({"physics": {"timestep_s": 0.02}}, ["`physics.timestep_s` = 0.02"]),
        ({"action": {"dimensions": []}}, ["at least one quantity"]),
        ({"action": {"dimensions": ["palm_x", "palm_x"]}}, ["each once"]),
        ({"action": {"dimensions": ["palm_w"]}}, ["'palm_w'", "palm_x", "finger_spread"]),
        ({"action": {"workspace_min_m": [-0.3, 0, 0.3]}}, ["below `workspace_max_m`"]),
        ({"camera": {"width": 0}}, ["`camera.width` = 0"]),
    ],
)
def test_an_impossible_task_is_refused(values, needles):
    with pytest.raises(ConfigError) as error:
        parse_config(GraspConfig, values)
    for needle in needles:
        assert needle in message_of(error)


def test_a_camera_is_overridden_key_by_key():
    default, config = GraspConfig(), parse_config(GraspConfig, {"camera": {"width": 64}})
    assert config.camera == replace(default.camera, width=64)
    turned = {"look_at_m": None, "quaternion_wxyz": [1.0, 0.0, 0.0, 0.0]}
    below = {"center_m": default.camera.position_m[:2]}  # it looks straight down
    camera = parse_config(GraspConfig, {"camera": turned, "spawn": below}).camera
    assert (camera.look_at_m, camera.position_m) == (None, default.camera.position_m)


def test_derived_times_of_the_task():
    config = parse_config(
        GraspConfig, {"control_hz": 20, "episode_s": 3, "physics": {"timestep_s": 0.01}}
    )
    assert (config.physics_steps, config.episode_steps, config.control_dt_s) == (5, 60, 0.05)
    assert config.success.hold_steps(config.control_dt_s) == 10
    assert replace(config.success, hold_s=0.001).hold_steps(0.05) == 1
    assert GraspConfig().physics_steps == 8
