"""The LSTM over rollouts in which episodes start anywhere."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dexgrasp_learner.networks.memory import LstmMemory

torch.set_num_threads(1)


def random_starts(steps: int, envs: int, share: float, seed: int) -> Tensor:
    return torch.rand(steps, envs, generator=torch.Generator().manual_seed(seed)) < share


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(2, 9),
    envs=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_packed_memory_is_stepwise_memory(steps, envs, share, seed):
    generator = torch.Generator().manual_seed(seed)
    memory = LstmMemory(3, 4)
    features = torch.randn(steps, envs, 3, generator=generator, requires_grad=True)
    carried = torch.randn(2, envs, 4, generator=generator, requires_grad=True)
    start = random_starts(steps, envs, share, seed)
    packed, packed_end = memory.packed(features, start, carried)

    outputs, state = [], carried
    for t in range(steps):
        output, state = memory.step(features[t : t + 1], start[t : t + 1], state)
        outputs.append(output)
    torch.testing.assert_close(packed, torch.cat(outputs), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(packed_end, state, atol=1e-6, rtol=1e-5)

    weights = torch.randn(packed.shape, generator=generator)
    inputs = (features, carried, *memory.parameters())
    packed_gradients = torch.autograd.grad((packed * weights).sum(), inputs)
    step_gradients = torch.autograd.grad((torch.cat(outputs) * weights).sum(), inputs)
    for ours, theirs in zip(packed_gradients, step_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_an_episode_start_forgets_everything_before():
    memory = LstmMemory(3, 4)
    features = torch.randn(6, 1, 3)
    start = torch.zeros(6, 1, dtype=torch.bool)
    start[3] = True
    one, _ = memory(features, start, torch.randn(2, 1, 4))
    two, _ = memory(torch.cat((torch.randn(3, 1, 3), features[3:])), start, torch.randn(2, 1, 4))
    torch.testing.assert_close(one[3:], two[3:])
    assert not torch.allclose(one[:3], two[:3])
