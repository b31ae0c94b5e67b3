"""`dexgrasp bench deploy_faults` and `deploy`: a few faults injected for real, a short run."""

import argparse

import numpy as np
import pytest

from benchmarks import deploy_faults
from benchmarks.deploy_fault_kinds.case import CommandCount
from benchmarks.deploy_fault_kinds.core import core_cases
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot


def measured(benchmark, *arguments):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.measure(parser.parse_args(arguments))


def test_commands_beyond_a_limit_are_counted():
    robot = load_robot()
    names, start = robot.joint_names, np.array(robot.postures["pregrasp"])
    count = CommandCount(robot, period_s=0.1)

    def add(position, out_of_limits):
        count.add(dict(zip(names, position.tolist(), strict=True)))
        assert count.out_of_limits == out_of_limits

    add(start, 0)
    # iiwa7_joint_1 may move by 0.17104 rad in 0.1 s
    add(start + 0.17 * (np.arange(23) == 0), 0)
    add(start, 0)
    add(start + 0.18 * (np.arange(23) == 0), 1)
    count.forget()
    add(np.array(robot.upper), 1)
    add(np.array(robot.upper) + 1e-3, 2)
    add(np.full(23, np.nan), 3)
    count.add({"iiwa7_joint_1": 0.0})
    assert (count.commands, count.out_of_limits) == (8, 4)


@pytest.mark.slow
@pytest.mark.parametrize("only", ["NaN", "cancel in", "order", "covered"])
def test_faults_of_the_core_are_injected_and_handled(only):
    settings, figures = measured(deploy_faults, "--kinds", "core", "--only", only)
    assert settings["kinds"] == ["core"]
    names = [name for name in core_cases() if only in name]
    assert [case["fault"] for case in figures["cases"]] == names and names
    assert figures["injected"] == figures["handled"] == len(names)
    assert figures["out_of_limit_commands"] == 0 and figures["not_handled"] == []


@pytest.mark.slow
def test_a_fault_of_a_real_node_is_injected_and_handled():
    # nothing here measures time, and a busy computer may stall for long
    arguments = ["--kinds", "node", "--only", "joint_states with", "--max-age-s", "10"]
    _, figures = measured(deploy_faults, *arguments)
    assert figures["injected"] == figures["handled"] == 2, figures
    assert figures["commands"] > 0 and figures["out_of_limit_commands"] == 0


def test_unknown_kind_of_fault_is_refused():
    with pytest.raises(ConfigError, match="--kinds cor: must be of core, node, twin"):
        measured(deploy_faults, "--kinds", "cor")
