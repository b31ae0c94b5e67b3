"""The fabric's decoder under many environments and over the course of a training."""

import pytest
import torch

from dexgrasp_sim import linear_algebra
from dexgrasp_sim.config import parse_config
from dexgrasp_sim.control.fabric import chains
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.fabric.decoder import FabricDecoder
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.schedules import Ramp
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
TABLE = GraspConfig().table_obstacle
DT_S = 1 / 60

pytestmark = pytest.mark.usefixtures("one_thread")


def make(num_envs):
    return FabricDecoder(FabricConfig(), ROBOT, num_envs, DT_S, TABLE)


@pytest.mark.parametrize("parts", [[4, 4], [1, 7], [5, 7, 21], [40, 60], [1] * 5])
def test_an_environment_does_the_same_in_any_batch(parts):
    """Bit for bit, also while the guard turns some of them away from the table."""
    count = sum(parts)
    rng = torch.Generator().manual_seed(count)
    actions = torch.sign(torch.randn(40, count, 11, generator=rng))[torch.arange(40) // 10 * 10]
    actions[:, :, :3] *= torch.tensor([0.2, 0.2, 1.0])
    actions[:, :, 2] = -1.0  # into the table
    one = make(1)
    starts = one.start_position + 0.02 * torch.randn(count, 23, generator=rng)
    whole, pieces = make(count), [make(part) for part in parts]
    whole.reset(None, starts)
    for piece, start in zip(pieces, starts.split(parts), strict=True):
        piece.reset(None, start)
    for action in actions:
        together = whole.decode(action)
        split = zip(pieces, action.split(parts), strict=True)
        assert torch.equal(together, torch.cat([piece.decode(own) for piece, own in split]))
        assert torch.equal(whole.intent(), torch.cat([piece.intent() for piece in pieces]))
    near = starts + torch.randn(count, 23, generator=rng)
    gaps = [one.gap(row[None]) for row in near]
    assert torch.equal(whole.gap(near), torch.cat(gaps))


def test_sums_in_any_order_are_the_same_but_for_rounding(monkeypatch):
    """Those of GPUs, also while the guard turns robots away from the table."""
    rng = torch.Generator().manual_seed(0)
    actions = torch.sign(torch.randn(5, 8, 11, generator=rng)).repeat_interleave(10, 0)
    actions[:, :, :3] *= torch.tensor([0.2, 0.2, 1.0])
    actions[:, :, 2] = -1.0  # into the table
    ordered, other = make(8), make(8)
    wanted = torch.stack([ordered.decode(action).clone() for action in actions])
    for module in (linear_algebra, chains):
        monkeypatch.setattr(module, "keeps_order", lambda values: False)
    found = torch.stack([other.decode(action).clone() for action in actions])
    assert not torch.equal(found, wanted), "the other code has run"
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-4)


def test_an_episode_keeps_the_damping_of_the_difficulty_it_began_with():
    ramp = {"initial": 10.0, "final": 20.0}
    schedules = {"damping_per_s": ramp, "velocity_target_factor": {"initial": 1, "final": 0}}
    config = parse_config(FabricConfig, schedules)
    decoder = FabricDecoder(config, ROBOT, 3, DT_S, TABLE)
    slow = FabricDecoder(FabricConfig(damping_per_s=Ramp(20.0)), ROBOT, 3, DT_S, TABLE)
    fast = FabricDecoder(FabricConfig(), ROBOT, 3, DT_S, TABLE)
    assert decoder.damping.tolist() == [10.0] * 3
    decoder.set_difficulty(1.0)
    decoder.reset(torch.tensor([1]))
    assert decoder.damping.tolist() == [10.0, 20.0, 10.0]
    action = 2 * torch.rand(3, 11, generator=torch.Generator().manual_seed(0)) - 1
    for _ in range(30):
        for each in (decoder, slow, fast):
            each.decode(action)
    assert torch.equal(decoder.target[1], slow.target[1])
    assert torch.equal(decoder.target[[0, 2]], fast.target[[0, 2]])
    assert (slow.target - slow.start_position).norm() < 0.9 * (
        fast.target - fast.start_position
    ).norm()
    other = FabricDecoder(config, ROBOT, 3, DT_S, TABLE)
    other.load_state_dict(decoder.state_dict())
    assert torch.equal(other.decode(action), decoder.decode(action))
    assert FabricDecoder(config, ROBOT, 1, DT_S, TABLE, difficulty=0.5).damping.item() == 15.0


def test_velocity_targets_follow_the_speed_of_the_targets_by_their_factor():
    config = FabricConfig(velocity_target_factor=Ramp(1.0, 0.0), time_scale=2.0)
    decoder = FabricDecoder(config, ROBOT, 2, DT_S, TABLE, difficulty=0.75)
    before = decoder.target.clone()
    decoder.decode(torch.ones(2, 11))
    path = torch.cat((before[None], decoder.path))  # [K + 1, N, J]
    speed = path.diff(dim=0) * decoder.steps_per_period / DT_S
    assert torch.allclose(decoder.velocity_path, 0.25 * speed, atol=1e-4)
    decoder.set_difficulty(1.0)
    assert decoder.velocity_path is None
