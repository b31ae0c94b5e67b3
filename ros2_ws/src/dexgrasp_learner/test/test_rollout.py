"""The learner's view of a pool's tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_learner.rollout.minibatches import Batch, deal
from dexgrasp_learner.rollout.rollout import Rollout

torch.set_num_threads(1)

HORIZON, ENVS, ACTIONS = 3, 5, 2


def pool_tensors(horizon: int = HORIZON, envs: int = ENVS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    depth = torch.randint(0, 900, (horizon + 1, envs, 8, 8), generator=generator)
    return {
        "proprio": torch.randn(horizon + 1, envs, 4, generator=generator),
        "depth": depth.to(torch.int16),
        "unused": torch.zeros(horizon + 1, envs, 9),
        "reward": torch.randn(horizon + 1, envs, generator=generator),
        "terminated": torch.rand(horizon + 1, envs, generator=generator) < 0.3,
        "truncated": torch.rand(horizon + 1, envs, generator=generator) < 0.3,
        "actions": torch.zeros(horizon, envs, ACTIONS),
    }


def make_rollout(tensors: dict[str, torch.Tensor]) -> Rollout:
    return Rollout.on(tensors, ("proprio", "depth"), {"actor": 6, "critic": 0})


def test_observations_exist_once():
    tensors = pool_tensors()
    rollout = make_rollout(tensors)
    assert set(rollout.observations) == {"proprio", "depth"}
    observations, _ = rollout.slot(2)
    assert observations["depth"].data_ptr() == tensors["depth"][2].data_ptr()
    assert observations["depth"].dtype == torch.int16
    assert observations["depth"].shape == (1, ENVS, 8, 8)
    tensors["proprio"][2] = 7.0
    assert (observations["proprio"] == 7).all()


def test_results_belong_to_the_action_before_their_slot():
    tensors = pool_tensors()
    rollout = make_rollout(tensors)
    for slot in range(HORIZON + 1):
        rollout.receive(slot)
    torch.testing.assert_close(rollout.rewards, tensors["reward"][1:])
    assert torch.equal(rollout.terminated, tensors["terminated"][1:])
    assert torch.equal(rollout.truncated, tensors["truncated"][1:])
    assert torch.equal(rollout.own.start, tensors["terminated"] | tensors["truncated"])


def test_actions_are_written_where_the_pool_sends_them_from():
    tensors = pool_tensors()
    rollout = make_rollout(tensors)
    rollout.publish_actions(1, torch.full((ENVS, ACTIONS), 0.25))
    assert (tensors["actions"][1] == 0.25).all()
    assert (tensors["actions"][0] == 0).all()


def test_batch_holds_whole_rows_of_its_environments():
    tensors = pool_tensors()
    rollout = make_rollout(tensors)
    rollout.own.values.copy_(torch.arange(4.0)[:, None].expand(4, ENVS) * 10 + torch.arange(5.0))
    rollout.memory["actor"].copy_(torch.arange(5.0)[None, :, None].expand(2, 5, 6))
    for slot in range(HORIZON + 1):
        rollout.receive(slot)
    rows = Batch.whole(rollout).rows(torch.tensor([4, 1]))
    assert torch.equal(rows.observations["depth"], tensors["depth"][:3, [4, 1]])
    assert torch.equal(rows.start, rollout.own.start[:3, [4, 1]])
    assert torch.equal(rows.values, torch.tensor([[4.0, 1], [14, 11], [24, 21]]))
    assert torch.equal(rows.memory["actor"][:, :, 0], torch.tensor([[4.0, 1], [4, 1]]))
    assert rows.memory["critic"].shape == (2, 2, 0)


def test_single_steps_are_the_same_steps_without_copies():
    tensors = pool_tensors()
    rollout = Rollout.on(tensors, ("proprio", "depth"), {"actor": 0, "critic": 0})
    rollout.own.log_prob.copy_(10 * torch.arange(3.0)[:, None] + torch.arange(5.0))
    for slot in range(HORIZON + 1):
        rollout.receive(slot)
    steps = Batch.whole(rollout).single_steps()
    assert steps.num_envs == HORIZON * ENVS
    assert steps.observations["depth"].data_ptr() == tensors["depth"].data_ptr()
    some = steps.rows(torch.tensor([0, 7, 14]))  # environments 0, 2, 4 at steps 0, 1, 2
    assert some.log_prob.tolist() == [[0.0, 12.0, 24.0]]
    assert torch.equal(some.observations["depth"][0], tensors["depth"][[0, 1, 2], [0, 2, 4]])
    assert some.memory["actor"].shape == (2, 3, 0)


def test_memory_before_step_zero_is_kept():
    rollout = make_rollout(pool_tensors())
    rollout.receive(0)
    rollout.memory["actor"] = rollout.memory["actor"] + 1
    rollout.receive(1)
    assert (rollout.start_memory["actor"] == 0).all()
    rollout.receive(0)
    assert (rollout.start_memory["actor"] == 1).all()


def test_state_restores_the_memories():
    rollout = make_rollout(pool_tensors())
    rollout.memory["actor"] = torch.randn(2, ENVS, 6)
    other = make_rollout(pool_tensors())
    other.load_state_dict(rollout.state_dict())
    assert torch.equal(other.memory["actor"], rollout.memory["actor"])


@settings(max_examples=60, deadline=None)
@given(
    envs=st.integers(1, 40),
    minibatches=st.integers(1, 8),
    micro_batches=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_minibatches_deal_every_environment_once(envs, minibatches, micro_batches, seed):
    samples = Batch.whole(make_rollout(pool_tensors(1, envs)))
    generator = torch.Generator().manual_seed(seed)
    if minibatches * micro_batches > envs:
        with pytest.raises(ValueError, match=f"num_envs = {envs}"):
            list(deal(samples, minibatches, micro_batches, generator))
        return
    dealt = list(deal(samples, minibatches, micro_batches, generator))
    assert [len(minibatch) for minibatch in dealt] == [micro_batches] * minibatches
    sizes = [sum(len(micro) for micro in minibatch) for minibatch in dealt]
    assert max(sizes) - min(sizes) <= 1
    pieces = [micro for minibatch in dealt for micro in minibatch]
    assert all(len(piece) > 0 for piece in pieces)
    assert sorted(torch.cat(pieces).tolist()) == list(range(envs))


def test_by_default_micro_batches_hold_a_bearable_number_of_images():
    generator = torch.Generator()

    def pieces(horizon: int, envs: int, group: str, pixels: int = 8) -> list[list[int]]:
        tensors = pool_tensors(horizon, envs)
        tensors["depth"] = tensors["depth"][..., :1].expand(-1, -1, 8, pixels)
        samples = Batch.whole(Rollout.on(tensors, (group,), {}))
        return [[len(piece) for piece in part] for part in deal(samples, 2, None, generator)]

    assert pieces(16, 64, "depth", 384) == [[16, 16]] * 2  # 256 images of 64x48
    assert pieces(16, 64, "depth", 192) == [[32]] * 2  # twice as many of half the size
    assert pieces(16, 64, "depth", 9999) == [[16, 16]] * 2
    assert pieces(16, 64, "proprio") == [[32]] * 2
    assert pieces(300, 4, "depth", 384) == [[1, 1]] * 2


def test_order_depends_on_the_generator_only():
    samples = Batch.whole(make_rollout(pool_tensors(1, 16)))

    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        minibatches = deal(samples, 4, 2, generator)
        return [int(env) for minibatch in minibatches for micro in minibatch for env in micro]

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="mirrors exist only beside a GPU")
def test_gpu_mirror_is_filled_slot_by_slot():
    tensors = pool_tensors()
    rollout = Rollout.on(tensors, ("proprio", "depth"), {"actor": 0}, "cuda")
    tensors["depth"] += 1
    rollout.receive(1)
    assert torch.equal(rollout.observations["depth"][1].cpu(), tensors["depth"][1])
    assert not torch.equal(rollout.observations["depth"][2].cpu(), tensors["depth"][2])
    rollout.publish_actions(0, torch.ones(ENVS, ACTIONS, device="cuda"))
    assert (tensors["actions"][0] == 1).all()
