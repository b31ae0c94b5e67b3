"""Gradients that a GPU replays are those that the CPU computes."""

from itertools import chain

import pytest
import torch

from dexgrasp_learner.algorithms.gradients import Gradients
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.assembly import build_ppo, pool_spec
from dexgrasp_sim.config import parse_config
from test_support.tape import nothing_recorded, record_tapes

torch.set_num_threads(1)

HORIZON, ENVS = 5, 13
NETWORK = {
    "actor_groups": ["proprio", "depth"],
    "critic_groups": ["proprio", "critic"],
    "auxiliary_group": "object",
    "fused_size": 16,
    "hidden": [16],
    "critic_hidden": [16],
}


def config_with(ppo, device="cpu", **network):
    values = {
        "training": {"horizon": HORIZON, "device": device},
        "simulators": {"num_envs": ENVS},
        "network": NETWORK | network,
        "ppo": {"normalize_values": True, "bounds_coefficient": 0.1} | ppo,
    }
    return parse_config(RunConfig, values)


def rollout_of(ppo: Ppo, config: RunConfig, seed: int = 0) -> Rollout:
    """A rollout in which the policy has acted on random observations and rewards."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for block in pool_spec(config, None, ppo.groups).layout().rollout_blocks:
        drawn = torch.rand(block.shape, generator=generator)
        scale = 1200.0 if block.torch_dtype == torch.int16 else 1.0
        ends = drawn < 0.1 if block.name in ("terminated", "truncated") else drawn >= 0.0
        is_bool = block.torch_dtype == torch.bool
        value = ends if is_bool else (scale * drawn).to(block.torch_dtype)
        tensors[block.name] = value.to(ppo.device)
    rollout = Rollout.on(tensors, ppo.groups, ppo.memory_sizes, ppo.device)
    for slot in range(HORIZON):
        ppo.act(rollout, slot)
    return rollout


@pytest.fixture
def tapes(monkeypatch):
    """The CPU as if it were a GPU; the tapes by number."""
    return record_tapes(monkeypatch)


def updated(replayed: Ppo, called: Ppo, config: RunConfig, cycle: int):
    """What both give for an update from equal rollouts."""
    metrics = replayed.update(rollout_of(replayed, config, cycle))
    with nothing_recorded():
        return metrics, called.update(rollout_of(called, config, cycle))


def assert_same_weights(one: Ppo, other: Ppo) -> None:
    nets = (chain(ppo.actor.parameters(), ppo.critic.parameters()) for ppo in (one, other))
    for weight, wanted in zip(*nets, strict=True):
        torch.testing.assert_close(weight, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pieces", [1, 2])
def test_updates_from_recordings_are_those_of_called_code(tapes, pieces):
    """Weights, statistics and learning rate change in between, sizes of minibatches differ."""
    config = config_with({"epochs": 2, "minibatches": 3, "micro_batches": pieces})
    replayed, called = build_ppo(config), build_ppo(config)
    for cycle in range(3):
        metrics, expected = updated(replayed, called, config, cycle)
        assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert_same_weights(replayed, called)
    assert len(tapes) == 2  # 65 steps: minibatches or their pieces of two sizes


@pytest.mark.parametrize("case", ["memory", "invalid steps"])
def test_what_cannot_be_recorded_is_computed(tapes, case):
    memory = {"memory": "lstm", "memory_size": 8} if case == "memory" else {}
    config = config_with({"epochs": 2, "minibatches": 2}, **memory)
    ppo = build_ppo(config)
    rollout = rollout_of(ppo, config)
    if case == "invalid steps":
        rollout.mirror.tensors["valid"][3, 3] = False
    ppo.update(rollout)
    assert not tapes


def test_pieces_add_up():
    """Of the loss w * x, doubled, the gradient of a share s is 2 s x."""
    weight = torch.nn.Parameter(torch.ones(()))
    gradients = Gradients(
        lambda batch, _: {"loss": weight * batch.returns.mean()},
        lambda losses: 2.0 * losses["loss"],
        [weight],
        has_memory=False,
    )
    config = config_with({})
    ppo = build_ppo(config)
    batch = ppo.samples(rollout_of(ppo, config))
    for share, value in ((0.25, 3.0), (0.75, -1.0)):
        batch.returns.fill_(value)
        terms = gradients.add(batch, torch.zeros(2), share)
        assert terms["loss"].item() == pytest.approx(share * value)
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 * (0.25 * 3.0 - 0.75))
    assert gradients.present() == [weight.grad]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN needs a GPU")
def test_a_gpu_learns_with_a_memory():
    config = config_with({"epochs": 2}, "cuda", memory="lstm", memory_size=8)
    ppo = build_ppo(config)
    metrics = ppo.update(rollout_of(ppo, config))
    assert metrics["actor_grad_norm"] > 0.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_graph_of_a_gpu_gives_the_gradients_of_called_code(capsys):
    config = config_with({"epochs": 2, "minibatches": 3, "precision": "bfloat16"}, "cuda")
    replayed, called = build_ppo(config), build_ppo(config)
    for cycle in range(2):
        metrics, expected = updated(replayed, called, config, cycle)
        assert metrics == pytest.approx(expected, rel=0.02, abs=1e-3)
    assert_same_weights(replayed, called)
    assert "without a CUDA graph" not in capsys.readouterr().err
