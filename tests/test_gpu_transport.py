"""The lock-step of `bench gpu_transport` where there is no GPU: the same code, other devices."""

import argparse
import json
from contextlib import ExitStack

import pytest
import torch

from benchmarks import gpu_transport
from benchmarks.gpu_transport import WAYS, Link, Way
from benchmarks.peers.transport import Payload
from benchmarks.transport import LARGE, MEDIUM
from dexgrasp_sim.config import ConfigError

pytestmark = pytest.mark.slow

PAYLOAD = Payload(3, {"image": ((4, 5), "uint8"), "state": ((6,), "float32")})
HAS_GPU = torch.cuda.is_available()


@pytest.mark.parametrize("way", [Way("host"), WAYS["pageable"]])
def test_every_way_brings_what_the_workers_hold(way):
    link = Link(PAYLOAD, way, 2, "cpu")
    try:
        link.start()
        for _ in range(2 * gpu_transport._HORIZON + 1):
            link.clear()
            link.step()
            link.check()
        link.clear()
        with pytest.raises(RuntimeError, match="did not arrive intact"):
            link.check()
    finally:
        link.close()


def test_rounds_are_written_one_by_one_and_what_is_there_is_not_measured_again(tmp_path):
    parser = argparse.ArgumentParser()
    gpu_transport.add_arguments(parser)
    small = [
        "--device",
        "cpu",
        "--envs",
        "2",
        "3",
        "--rounds",
        "2",
        "--steps",
        "2",
        "--workers",
        "1",
    ]
    args = parser.parse_args(small)
    args.out = tmp_path
    settings, figures = gpu_transport.measure(args)
    assert settings["envs"] == {LARGE: 3, MEDIUM: 2}
    assert set(figures["step_ms"]) == {LARGE, MEDIUM}
    written = json.loads((tmp_path / "gpu_transport.json").read_text())["parts"]
    assert list(written) == [f"{s}/pageable/{k}" for s in (LARGE, MEDIUM) for k in range(2)]
    assert gpu_transport.measure(args)[1] == figures


def test_a_way_that_cannot_be_had_says_so_at_its_turn(monkeypatch):
    monkeypatch.setattr(gpu_transport, "_START_TIMEOUT_S", -1.0)  # refused by the pool's config
    with ExitStack() as stack, pytest.raises(ValueError, match="start_timeout_s"):
        gpu_transport._started(PAYLOAD, WAYS["pageable"], 1, "cpu", stack)()


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    parser = argparse.ArgumentParser()
    gpu_transport.add_arguments(parser)
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
        gpu_transport.measure(parser.parse_args([]))


@pytest.mark.skipif(not HAS_GPU, reason="copies to and from a GPU")
@pytest.mark.parametrize("name", WAYS)
def test_every_way_brings_what_the_workers_hold_on_a_gpu(name):
    link = Link(PAYLOAD, WAYS[name], 2, "cuda")
    try:
        link.start()
        link.clear()
        link.step()
        link.check()
    finally:
        link.close()
