"""Every run configuration of the repository loads, and holds only what it changes."""

import copy
from pathlib import Path

import pytest
import yaml

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_sim.config import ConfigError, parse_config, read_values
from dexgrasp_sim.yaml_file import laid_over

CONFIGS = sorted((Path(__file__).parents[1] / "config").glob("*.yaml"))


def leaves(values, path=()):
    """The paths of all values that are no mappings."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def without(values, path):
    values = copy.deepcopy(values)
    *parents, last = path
    group = values
    for key in parents:
        group = group[key]
    del group[last]
    return values


def overrides(path):
    return {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "base"}


def base_values(path):
    base = yaml.safe_load(path.read_text()).get("base")
    return read_values(path.parent / base) if base else {}


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} >= {"laptop_depth", "laptop_state", "smoke"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_under_its_own_name(path):
    assert load_run_config(path).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_changes_what_would_hold_without_it(path):
    own, base = overrides(path), base_values(path)
    resolved = parse_config(RunConfig, laid_over(base, own))
    idle = []
    for leaf in leaves(own):
        try:
            same = parse_config(RunConfig, laid_over(base, without(own, leaf))) == resolved
        except ConfigError:  # the others need this one
            same = False
        if same:
            idle.append(".".join(leaf))
    assert not idle, f"{path.name}: {idle} repeat the default or the base; remove them"
