"""The task on a device that cannot be read: tensors without data, as if a GPU were far away."""

from pathlib import Path

import pytest
import torch

from dexgrasp_sim.config import parse_config, read_values
from dexgrasp_sim.physics.still_engine import StillEngine
from dexgrasp_sim.tasks.grasp import env as env_module
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.observations import GROUPS
from dexgrasp_sim.vec_env import allocate

CONFIGS = Path(__file__).parents[4] / "config"
NUM_ENVS, ENDED = 8, 3


@pytest.fixture
def env(monkeypatch, request):
    """Environments on the `meta` device, where any look at a value raises."""
    task = read_values(CONFIGS / request.param).get("task", {})
    config = parse_config(GraspConfig, task)
    asked = []

    def ended(mask):
        asked.append(mask)
        return torch.arange(ENDED, device="meta")

    monkeypatch.setattr(env_module, "rows_of", ended)
    env = GraspEnv(config, StillEngine(config.scene(NUM_ENVS), "meta"), 0, tuple(GROUPS))
    return env, asked


every_config = pytest.mark.parametrize(
    "env",
    ["paper.yaml", "laptop_state.yaml", "realism.yaml", "franka_leap_laptop.yaml"],
    indirect=True,
)


@every_config
def test_a_reset_reads_nothing_and_a_step_asks_once_which_episodes_have_ended(env):
    env, asked = env
    out = allocate(env)
    assert {tensor.device.type for tensor in out.values()} == {"meta"}
    env.reset(out)
    env.reset_envs(torch.arange(2, device="meta"), out)
    assert not asked
    for steps in (1, 2):
        env.step(torch.zeros(NUM_ENVS, env.action_dim, device="meta"), out)
        assert len(asked) == steps and asked[-1].shape == (NUM_ENVS,)


@every_config
def test_all_state_is_on_the_device(env):
    env, _ = env
    state = env.state_dict()
    assert {tensor.device.type for tensor in state.values()} == {"meta"}
    env.load_state_dict(state, allocate(env))
