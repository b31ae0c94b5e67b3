"""Images that stay with the host: the same batches, whatever the pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_learner.rollout.image_storage import ImagePrefetch
from dexgrasp_learner.rollout.minibatches import Batch, batches, deal
from dexgrasp_learner.rollout.rollout import Rollout

torch.set_num_threads(1)

HORIZON, ENVS = 3, 10


def pool_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    slots = (HORIZON + 1, ENVS)
    flags = torch.zeros(*slots, dtype=torch.bool)
    return {
        "depth": torch.randint(0, 900, (*slots, 4, 5), generator=generator).to(torch.int16),
        "stereo": torch.randint(0, 255, (*slots, 2, 3, 4, 5), generator=generator).to(torch.uint8),
        "proprio": torch.randn(*slots, 3, generator=generator),
        "reward": torch.zeros(*slots),
        "terminated": flags,
        "truncated": flags,
        "actions": torch.zeros(HORIZON, ENVS, 2),
    }


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, ENVS), max_size=6), seed=st.integers(0, 1000))
def test_every_piece_arrives_as_it_was_stored(sizes, seed):
    tensors = pool_tensors()
    images = {name: tensors[name] for name in ("depth", "stereo")}
    generator = torch.Generator().manual_seed(seed)
    pieces = [torch.randperm(ENVS, generator=generator)[:size] for size in sizes]
    prefetch = ImagePrefetch(images, HORIZON, torch.device("cpu"))
    arrived = 0
    for envs, received in zip(pieces, prefetch.pieces(pieces), strict=True):
        assert received.keys() == images.keys()
        for name, image in images.items():
            assert torch.equal(received[name], image[:HORIZON, envs])
        arrived += 1
    assert arrived == len(pieces)


def test_a_piece_is_not_that_of_the_pool_and_two_are_held_at_once():
    """The memory of a piece is used again two pieces later, not by the next one."""
    images = {"depth": pool_tensors()["depth"]}
    pieces = [torch.tensor([env]) for env in range(4)]
    prefetch = ImagePrefetch(images, HORIZON, torch.device("cpu"))
    places = [received["depth"].data_ptr() for received in prefetch.pieces(pieces)]
    assert places[0] == places[2] and places[1] == places[3] and places[0] != places[1]


@pytest.mark.parametrize("single_steps", [False, True])
def test_a_rollout_gives_the_same_batches_from_both_storages(single_steps):
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    observed = []
    for storage, generator in zip(("device", "host"), generators):
        rollout = Rollout.on(pool_tensors(), ("depth", "proprio", "stereo"), {}, "cpu", storage)
        for slot in range(HORIZON + 1):
            rollout.receive(slot)
            observations, _ = rollout.slot(slot)
            assert torch.equal(observations["depth"][0], pool_tensors()["depth"][slot])
        samples = Batch.whole(rollout)
        if single_steps:
            samples = samples.single_steps()
        order = deal(samples, 3, 2, generator)
        observed.append(
            [
                {name: tensor.clone() for name, tensor in batch.observations.items()}
                for batch in batches(samples, order, rollout.mirror.in_host)
            ]
        )
    assert len(observed[0]) == 6
    torch.testing.assert_close(observed[0], observed[1], rtol=0, atol=0)
