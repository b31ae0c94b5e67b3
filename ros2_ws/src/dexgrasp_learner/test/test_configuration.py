"""`dexgrasp config` and `dexgrasp --version`."""

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from dexgrasp_learner.commands import configuration
from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_sim.arguments import Parser
from dexgrasp_sim.config import ConfigError, to_dict
from dexgrasp_sim.config_keys import config_keys
from dexgrasp_sim.version import UNKNOWN, git_commit, version_line

CONFIGS = sorted((Path(__file__).parents[4] / "config").glob("*.yaml"))
SMOKE = next(path for path in CONFIGS if path.name == "smoke.yaml")
README = SMOKE.parents[1] / "README.md"
KEYS = list(config_keys(RunConfig()))


@pytest.fixture
def call(capsys):
    def call(*arguments):
        parser = Parser()
        configuration.add_arguments(parser)
        assert configuration.run(parser.parse_args([str(argument) for argument in arguments])) == 0
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_is_shown_is_a_file_of_the_same_run(call, tmp_path, path):
    shown = tmp_path / "shown.yaml"
    shown.write_text(call("show", path, "--set", "seed=7", "--set", "name='1e-3'"))
    wanted = load_run_config(path, ["seed=7", "name='1e-3'"])
    assert load_run_config(shown) == wanted
    assert json.loads(call("show", path, "--set", "seed=7", "--json"))["seed"] == 7


def test_a_wrong_value_is_refused_as_by_train(call):
    with pytest.raises(ConfigError, match=r"--set ppo\.gama=1: unknown key `ppo\.gama`"):
        call("show", SMOKE, "--set", "ppo.gama=1")


@pytest.mark.parametrize("key", KEYS, ids=[f"{key.name} {key.meaning[:7]}" for key in KEYS])
def test_every_key_has_a_type_and_a_meaning(key):
    words = key.meaning.partition(") ")[2] if key.meaning.startswith("(kind") else key.meaning
    assert len(words) > 2 and words[-1] in ".:" and key.type not in ("", "value")


@pytest.mark.parametrize("key", [key for key in KEYS if "whole number" in key.type])
def test_every_whole_number_has_a_least_value(key):
    assert key.type.count("whole number") == key.type.count("whole number >")


def test_the_objects_of_the_readme_are_objects(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        path = tmp_path / "readme.yaml"
        path.write_text(block)
        config = load_run_config(path)
        assert config.task.objects[0].path == tmp_path / "scans" / "cup.obj"


def test_every_key_of_a_resolved_config_is_listed():
    def names(values, prefix=""):
        for name, value in values.items():
            is_group = isinstance(value, dict) and name != "weights" and "initial" not in value
            yield from names(value, f"{prefix}{name}.") if is_group else [prefix + name]

    for path in CONFIGS:
        missing = set(names(to_dict(load_run_config(path)))) - {key.name for key in KEYS}
        assert not missing


def test_keys_are_chosen_by_group_and_shown_with_unit_and_default(call):
    assert call("keys", "task.spawn.yaw_rad") == (
        "task.spawn.yaw_rad\n"
        "    number >= 0 and <= 3.14159, rad, default 3.141592653589793\n"
        "    Yaw is uniform in plus or minus this.\n"
    )
    spawn = json.loads(call("keys", "task.spawn", "--json"))
    assert [key["name"].split(".")[-1] for key in spawn] == [
        *("center_m", "half_width_m", "yaw_rad", "height_m")
    ]
    assert spawn[2] == {
        "name": "task.spawn.yaw_rad",
        "type": "number >= 0 and <= 3.14159",
        "default": pytest.approx(3.14159265),
        "unit": "rad",
        "meaning": "Yaw is uniform in plus or minus this.",
    }
    assert len(json.loads(call("keys", "--json"))) == len(KEYS) > 250
    assert "task.objects[].path" in call("keys", "task.objects")


@pytest.mark.parametrize(
    ("prefix", "hint"), [("ppo.gama", "'ppo.gamma'"), ("tsk", "'task'"), ("1234567", "list all")]
)
def test_an_unknown_prefix_gets_a_suggestion(call, prefix, hint):
    with pytest.raises(ConfigError, match=hint):
        call("keys", prefix)


def test_the_version_names_the_commit_of_a_checkout():
    line = version_line()
    assert line.startswith(f"dexgrasp {metadata.version('dexgrasp')}")
    assert git_commit() == UNKNOWN or f"(commit {git_commit()})" in line
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", git_commit())
