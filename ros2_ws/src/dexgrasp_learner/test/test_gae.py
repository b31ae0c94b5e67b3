"""Advantages and returns against values worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_learner.algorithms.gae import estimate_advantages, normalize_advantages

torch.set_num_threads(1)

REWARDS = [1.0, 2.0, 3.0]
VALUES = [1.0, 2.0, 3.0, 4.0]
NEVER = [False, False, False]
AT_ONE = [False, True, False]


def column(values: list) -> torch.Tensor:
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        # errors: 1 + .5*2 - 1 = 1, 2 + .5*3 - 2 = 1.5, 3 + .5*4 - 3 = 2; each adds .25 * the next
        (NEVER, NEVER, [1.5, 2.0, 2.0]),
        # the end at 1 has no future: 2 - 2 = 0
        (AT_ONE, NEVER, [1.0, 0.0, 2.0]),
        # cut off at 1: its own value stands in for the future, 2 + .5*2 - 2 = 1
        (NEVER, AT_ONE, [1.25, 1.0, 2.0]),
        # an end by the task wins over the time limit
        (AT_ONE, AT_ONE, [1.0, 0.0, 2.0]),
    ],
)
def test_three_steps_by_hand(terminated, truncated, expected):
    advantages, returns = estimate_advantages(
        column(REWARDS),
        column(VALUES),
        column(terminated),
        column(truncated),
        gamma=0.5,
        gae_lambda=0.5,
    )
    torch.testing.assert_close(advantages, column(expected))
    torch.testing.assert_close(returns, column(expected) + column(VALUES[:3]))


def test_timeout_in_the_last_step_does_not_use_the_next_episode():
    advantages, _ = estimate_advantages(
        column([1.0]), column([2.0, 100.0]), column([False]), column([True]), 0.5, 0.9
    )
    assert advantages.item() == pytest.approx(1 + 0.5 * 2 - 2)


def test_a_step_without_a_result_by_hand():
    """What was before it ends in the value of the state in which its action was taken."""
    advantages, returns = estimate_advantages(
        column([1.0, 1e6, 3.0]),
        column(VALUES),
        column(NEVER),
        column([False, True, False]),  # a broken simulator's row says that
        gamma=0.5,
        gae_lambda=0.5,
        valid=column([True, False, True]),
    )
    # 1 + .5*2 - 1 = 1, nothing, 3 + .5*4 - 3 = 2
    torch.testing.assert_close(advantages, column([1.0, 0.0, 2.0]))
    torch.testing.assert_close(returns, column([2.0, 2.0, 5.0]))


def test_advantages_of_steps_that_do_not_count_are_zero_and_move_no_mean():
    valid = torch.tensor([[True, True], [False, True]])
    normalized = normalize_advantages(torch.tensor([[1.0, 2.0], [1e6, 3.0]]), valid)
    torch.testing.assert_close(normalized, torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))


def test_environments_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(6, 3, generator=generator)
    values = torch.randn(7, 3, generator=generator)
    ends = torch.rand(6, 3, generator=generator) < 0.3
    cuts = torch.rand(6, 3, generator=generator) < 0.3
    together, _ = estimate_advantages(rewards, values, ends, cuts, 0.9, 0.8)
    for n in range(3):
        one = slice(n, n + 1)
        alone, _ = estimate_advantages(
            rewards[:, one], values[:, one], ends[:, one], cuts[:, one], 0.9, 0.8
        )
        torch.testing.assert_close(together[:, one], alone)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    steps=st.integers(1, 12),
    gamma=st.floats(0, 1),
    ends=st.floats(0, 1),
)
def test_lambda_one_gives_discounted_sums(seed, steps, gamma, ends):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(steps, 1, generator=generator)
    values = torch.randn(steps + 1, 1, generator=generator)
    terminated = torch.rand(steps, 1, generator=generator) < ends
    never = torch.zeros_like(terminated)
    _, returns = estimate_advantages(rewards, values, terminated, never, gamma, 1.0)
    for begin in range(steps):
        total, discount = 0.0, 1.0
        for step in range(begin, steps):
            total += discount * rewards[step].item()
            discount *= gamma
            if terminated[step]:
                break
        else:
            total += discount * values[-1].item()
        assert returns[begin].item() == pytest.approx(total, abs=1e-4)


def test_normalised_advantages():
    advantages = normalize_advantages(torch.arange(12.0).view(3, 4))
    assert advantages.mean().item() == pytest.approx(0, abs=1e-6)
    assert advantages.std().item() == pytest.approx(1, abs=1e-6)


def test_equal_advantages_stay_finite():
    assert normalize_advantages(torch.full((3, 4), 2.0)).abs().max() == 0
