"""Capacity plans: arithmetic by hand and the published figures."""

import argparse
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_learner.capacity.costs import GIB, Costs, load_costs
from dexgrasp_learner.capacity.model import (
    device_bytes,
    largest_count,
    plan_data_parallel,
    plan_disaggregated,
)
from dexgrasp_learner.capacity.workload import Workload, buffer_bytes
from dexgrasp_learner.commands import plan_capacity
from dexgrasp_sim.config import ConfigError, to_dict
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.vec_env import EnvSpecs

COSTS = Costs(
    source="by hand",
    device="fit",
    process=100,
    simulator=200,
    simulator_env=30,
    simulator_pixel=2,
    learner=50,
    inference_env=5,
    inference_pixel=0.5,
    update_sample=10,
    update_pixel=1,
    storage="int16",
    micro_batch_pixels=1000,
)
LOAD = Workload(pixels=10, horizon=4, buffer_bytes=20, parameters=3, micro_batch=8)


def arguments(*texts):
    parser = argparse.ArgumentParser()
    plan_capacity.add_arguments(parser)
    return parser.parse_args(texts)


def test_what_a_device_holds():
    """An update of 8 samples takes 8 * 20 bytes, inference of 5 environments 5 * 10."""
    assert device_bytes(COSTS, LOAD, 5, 5) == {
        "process": 100,
        "simulator": 200,
        "environments": 250,
        "learner": 50,
        "nets_and_optimizer": 48,
        "rollout": 100,
        "inference": 50,
        "update": 160,
    }
    assert device_bytes(COSTS, LOAD, None, 1)["update"] == 4 * 20
    assert set(device_bytes(COSTS, LOAD, 5, None)) == {"process", "simulator", "environments"}


def test_data_parallel_by_hand():
    """Fixed: 100 + 200 + 50 + 48 + 160 = 558; each environment 50 + 20 + 10; 8 need 1198."""
    plan = plan_data_parallel(COSTS, LOAD, 4, 1198)
    assert plan.environments == 4 * 8
    assert plan_data_parallel(COSTS, LOAD, 4, 1197).environments == 4 * 7
    assert sum(plan.shares[0].bytes.values()) == 1198


def test_disaggregated_by_hand():
    """A simulator holds (1198 - 300) / 50 = 17, a learner (1198 - 358) / (20 + 10) = 28.

    Three simulators and a learner hold min(51, 28), two and two min(34, 56), one and three 17.
    """
    plan = plan_disaggregated(COSTS, LOAD, 4, 1198)
    assert plan.environments == 34
    simulators, learners = plan.shares
    assert (simulators.devices, simulators.environments, simulators.limit) == (2, 17, 17)
    assert (learners.devices, learners.environments, learners.limit) == (2, 17, 28)
    assert plan.limited_by == "simulator"
    assert plan_disaggregated(COSTS, LOAD, 4, 1198, learners=1).environments == 28
    assert plan_disaggregated(COSTS, LOAD, 4, 1198, learners=1).limited_by == "learner"


def test_nothing_fits():
    assert plan_data_parallel(COSTS, LOAD, 4, 500).environments == 0
    assert plan_disaggregated(COSTS, LOAD, 4, 200).environments == 0


@settings(deadline=None)
@given(
    fixed=st.integers(0, 10**9),
    slope=st.integers(1, 10**6),
    memory=st.integers(0, 10**12),
)
def test_one_more_does_not_fit(fixed, slope, memory):
    count = largest_count(lambda n: fixed + slope * n, memory)
    assert count == min(max(0, (memory - fixed) // slope), 2**32 - 1)


@settings(deadline=None)
@given(
    memory=st.floats(1e3, 1e6),
    devices=st.integers(2, 9),
    horizon=st.integers(1, 64),
    micro_batch=st.integers(1, 500),
)
def test_a_plan_stays_within_memory_and_shares_add_up(memory, devices, horizon, micro_batch):
    load = Workload(10, horizon, 5 * horizon, 3, micro_batch)
    for plan in (
        plan_data_parallel(COSTS, load, devices, memory),
        plan_disaggregated(COSTS, load, devices, memory),
    ):
        assert sum(share.devices for share in plan.shares) == devices
        for share in plan.shares:
            assert share.environments <= share.limit
            if plan.environments:
                assert sum(share.bytes.values()) <= memory + len(share.bytes)
                assert share.devices * share.environments >= plan.environments


@pytest.mark.parametrize(
    ("resolution", "data_parallel", "disaggregated"),
    [("160x120", 4096, 8400), ("320x240", 1024, 2100)],
)
def test_the_fit_gives_the_published_figures(resolution, data_parallel, disaggregated):
    plan = plan_capacity.make_plan(arguments("--resolution", resolution))
    assert plan["data_parallel"] == data_parallel
    assert plan["disaggregated"] == disaggregated
    assert plan["ratio"] == pytest.approx(disaggregated / data_parallel, abs=5e-4)
    assert plan["costs"]["source"].startswith("a fit, not a measurement")


def test_smaller_storage_never_holds_less():
    counts = [
        plan_capacity.make_plan(arguments("--storage", storage))["data_parallel"]
        for storage in plan_capacity.STORAGES
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_rollout_bytes_are_those_of_the_real_tensors():
    groups = [TensorSpec("depth", (12, 16), "int16"), TensorSpec("proprio", (7,))]
    layout = RunLayout(EnvSpecs(tuple(groups), 3, 0.1), 5, ((0, 10),))
    blocks = [block for block in layout.rollout_blocks if block.name != "sequence"]
    pool = sum(block.nbytes for block in blocks) / 10
    private = 6 + 4 * 6 + 5 * 4 * (3 + 3) + 2 * 2 * 4 * 9
    assert buffer_bytes(groups, 3, 9, 5, "int16") == pool + private
    wider = 6 * 12 * 16 * 2 + 2 * 12 * 16 * 2  # two more bytes a pixel, and two slots of the pool
    assert buffer_bytes(groups, 3, 9, 5, "float32") == pool + private + wider


def test_the_table_names_the_source(capsys):
    assert plan_capacity.run(arguments()) == 0
    text = capsys.readouterr().out
    assert "not a measurement" in text
    assert "data-parallel: 4096 environments" in text
    assert "ratio: 2.05" in text


def test_json_has_the_breakdown(capsys):
    assert plan_capacity.run(arguments("--json", "--gpus", "2", "--gpu-memory-gb", "24")) == 0
    plan = json.loads(capsys.readouterr().out)
    for share in plan["per_gpu"]["data_parallel"] + plan["per_gpu"]["disaggregated"]:
        assert sum(share["bytes"].values()) <= 24 * GIB + len(share["bytes"])


def test_costs_that_are_not_there_are_refused_with_the_command_that_makes_them():
    with pytest.raises(ConfigError, match="bench capacity_costs"):
        plan_capacity.make_plan(arguments("--costs", "nowhere.json"))


def test_costs_that_were_not_measured_are_not_made_up(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({"costs": {**to_dict(COSTS), "simulator": None}}))
    with pytest.raises(ConfigError, match="simulator: not measured"):
        load_costs(str(path))
