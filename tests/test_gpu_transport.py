"""The lock-step of `bench gpu_transport` where there is no GPU: the same code, other devices."""

import argparse

import pytest
import torch

from benchmarks import gpu_transport
from benchmarks.gpu_transport import WAYS, Link, Way
from benchmarks.peers.transport import Payload
from dexgrasp_sim.config import ConfigError

pytestmark = pytest.mark.slow

PAYLOAD = Payload(3, {"image": ((4, 5), "uint8"), "state": ((6,), "float32")})
HAS_GPU = torch.cuda.is_available()


@pytest.mark.parametrize("way", [Way("host"), WAYS["pageable"]])
def test_every_way_brings_what_the_workers_hold(way):
    link = Link(PAYLOAD, way, 2, "cpu")
    try:
        for _ in range(2 * gpu_transport._HORIZON + 1):
            link.clear()
            link.step()
            link.check()
        link.clear()
        with pytest.raises(RuntimeError, match="did not arrive intact"):
            link.check()
    finally:
        link.close()


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
        link.clear()
        link.step()
        link.check()
    finally:
        link.close()
