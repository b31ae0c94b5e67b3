"""Where the networks of a run compute."""

from pathlib import Path

import pytest
import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.run.assembly import build_ppo, learner_device, pool_spec
from dexgrasp_sim.config import ConfigError

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
HAS_GPU = torch.cuda.is_available()


def config(device):
    return load_run_config(SMOKE, [f"training.device={device}"])


def test_the_cpu_is_always_there():
    assert learner_device("cpu") == torch.device("cpu")
    assert build_ppo(config("cpu")).device.type == "cpu"
    assert pool_spec(config("cpu"), None, ("proprio",)).learner_device == "cpu"


def test_auto_takes_what_there_is():
    expected = "cuda" if HAS_GPU else "cpu"
    assert build_ppo(config("auto")).device.type == expected
    assert pool_spec(config("auto"), None, ("proprio",)).learner_device.startswith(expected)


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"training\.device = 'cuda'"):
        build_ppo(config("cuda"))


def test_other_devices_are_refused():
    with pytest.raises(ConfigError, match=r"training\.device"):
        config("tpu")
