"""Where environments and tensors are, which carrier goes between, and what is refused."""

from pathlib import Path

import pytest
import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.run.assembly import pool_spec
from dexgrasp_sim.config import ConfigError, parse_config

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
TIMEOUT_S = 120.0


@pytest.fixture
def build(make_spec):
    def build(learner_device="cpu", **simulators):
        return make_spec(
            kind="synthetic",
            config={},
            groups=("state",),
            horizon=2,
            learner_device=learner_device,
            **{"num_envs": 2, "num_workers": 1, **simulators},
        )

    return build


MIXED = [{"num_envs": 1, "device": "cuda:0"}, {"num_envs": 1}]


@pytest.mark.parametrize(
    ("simulators", "learner", "carriers", "tensors"),
    [
        ({}, "cpu", ["host"], "cpu"),
        ({}, "cuda:0", ["host"], "cpu"),
        ({"device": "cuda:0"}, "cuda:0", ["cuda_ipc"], "cuda:0"),
        ({"device": "cuda:1"}, "cuda:0", ["cuda_ipc"], "cuda:0"),
        ({"device": "cuda:0"}, "cpu", ["pinned"], "cpu"),
        ({"device": "cuda:0", "carrier": "staged"}, "cuda:0", ["staged"], "cpu"),
        ({"transport": "in_process"}, "cuda:0", ["host"], "cpu"),
        ({"transport": "in_process", "device": "cuda:0"}, "cuda:0", ["host"], "cuda:0"),
        ({"transport": "in_process", "device": "cuda:1"}, "cuda:0", ["staged"], "cuda:0"),
        ({"transport": "in_process", "device": "cuda:0"}, "cpu", ["staged"], "cpu"),
        (
            {"transport": "remote", "listen": "a:1", "device": "cuda:0"},
            "cuda:0",
            ["pinned"],
            "cpu",
        ),
        ({"workers": MIXED, "num_workers": 2}, "cuda:0", ["pinned", "host"], "cpu"),
    ],
)
def test_the_carrier_follows_from_where_both_sides_compute(
    build, simulators, learner, carriers, tensors
):
    spec = build(learner, **simulators)
    assert [order["carrier"] for order in spec.orders()] == carriers
    wanted = [worker.device for worker in spec.simulators.worker_specs]
    assert [order["device"] for order in spec.orders()] == wanted
    assert spec.tensor_device == torch.device(tensors)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "gpu"}, "`device` = 'gpu'"),
        ({"workers": [{"num_envs": 1, "device": "cuda:x"}]}, "cuda:x"),
        ({"carrier": "pigeon"}, "`carrier` = 'pigeon'"),
        ({"carrier": "cuda_ipc"}, "environments on the CPU; say auto"),
        ({"carrier": "pinned", "workers": MIXED}, "environments on the CPU; say auto"),
        ({"carrier": "host", "device": "cuda"}, "'host' is for environments on the CPU"),
        (
            {"carrier": "cuda_ipc", "device": "cuda", "transport": "in_process"},
            "needs worker processes on the learner's host",
        ),
        ({"transport": "in_process", "workers": MIXED}, "give all workers the same"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(SimulatorsConfig, values, "simulators")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("transport", ["in_process", "shared_memory"])
def test_a_device_that_is_not_there_is_said_before_anything_starts(build, transport):
    with pytest.raises(ConfigError, match=r"simulators\.device = 'cuda:99': torch finds \d+ GPUs"):
        make_pool(build(device="cuda:99", transport=transport))
    workers = [{"num_envs": 1}, {"num_envs": 1, "device": "cuda:99"}]
    if transport == "shared_memory":
        with pytest.raises(ConfigError, match=r"simulators\.workers\[1\]\.device = 'cuda:99'"):
            make_pool(build(workers=workers, num_workers=2))


def test_the_devices_of_other_interpreters_and_hosts_are_theirs(build):
    build(device="cuda:99", python="/another/python").check_devices()
    build(device="cuda:99", transport="remote", listen="a:1").check_devices()


def test_cuda_ipc_needs_a_learner_on_a_gpu(build):
    spec = build(device="cuda", python="/another/python", carrier="cuda_ipc")
    with pytest.raises(ConfigError, match=r"training\.device is the CPU"):
        make_pool(spec)


def rollout_of(*overrides):
    """The tensors of a rollout that a run config asks for."""
    config = load_run_config(SMOKE, [*overrides, "simulators.num_envs=4"])
    pool = make_pool(pool_spec(config, None, ("proprio", "depth")))
    generator = torch.Generator().manual_seed(1)
    try:
        pool.start()
        for slot in range(pool.horizon):
            actions = torch.rand(pool.num_envs, pool.action_dim, generator=generator)
            pool.tensors["actions"][slot] = 2 * actions - 1
            pool.send(slot, 0)
            pool.wait(slot, TIMEOUT_S)
        tensors = {name: tensor.clone() for name, tensor in pool.tensors.items()}
        # only the rows of episodes that have ended mean something
        tensors["episode"] *= (tensors["terminated"] | tensors["truncated"])[..., None]
        return tensors
    finally:
        pool.close()


@pytest.mark.slow
def test_a_staged_run_gives_the_bytes_of_one_in_place():
    expected = rollout_of("simulators.transport=in_process")
    assert expected["depth"].count_nonzero() > 0
    for transport in ("in_process", "shared_memory"):
        found = rollout_of("simulators.carrier=staged", f"simulators.transport={transport}")
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (transport, name)
