"""Generalised advantage estimation."""

import torch
from torch import Tensor

from dexgrasp_learner.ranks.peers import Peers


def estimate_advantages(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of a rollout.

    Schulman et al.: "High-dimensional continuous control using generalized advantage estimation"
    (2016). A truncated episode would have continued. Its last observation was replaced by the
    first one of the next episode, so the value of the state one step earlier is used instead:
    r_t += gamma * V(s_t), as in rsl_rl.

    Args:
        rewards: float32 [T, N], reward of action t.
        values: float32 [T + 1, N], V of the state in which action t was taken; the last row is the
            state after the rollout.
        terminated: bool [T, N], action t ended the episode for a reason of the task.
        truncated: bool [T, N], the episode was cut off after action t. No effect where
            `terminated` is True.
        gamma: Discount per step.
        gae_lambda: 0 = one-step advantages, 1 = full returns.
        valid: bool [T, N], False where action t has no real result. Its advantage is then 0, and
            earlier steps bootstrap from the value of the state in which it was taken, so that
            later steps do not affect them. None: all are valid.

    Returns:
        Advantages [T, N], not normalised, and returns [T, N] (advantages + values).
    """
    cut_off = truncated & ~terminated
    rewards = rewards + gamma * values[:-1] * cut_off
    goes_on = (~(terminated | truncated)).to(rewards.dtype)
    errors = rewards + gamma * goes_on * values[1:] - values[:-1]  # [T, N]
    if valid is not None:
        goes_on = goes_on * valid
        errors = errors.masked_fill(~valid, 0.0)
    advantages = torch.empty_like(rewards)
    advantage = torch.zeros_like(rewards[0])  # [N]
    for step in reversed(range(len(rewards))):
        advantage = errors[step] + gamma * gae_lambda * goes_on[step] * advantage
        advantages[step] = advantage
    return advantages, advantages + values[:-1]


def normalize_advantages(
    advantages: Tensor, valid: Tensor | None = None, peers: Peers | None = None
) -> Tensor:
    """Advantages of the whole rollout with mean 0 and deviation 1.

    Args:
        advantages: float32 [T, N].
        valid: bool [T, N], which ones count; the others become 0. None: all.
        peers: Ranks whose rollouts are normalised together with this one.
    """
    counted = advantages if valid is None else advantages[valid]  # [T, N] or [K]
    if peers is None or peers.size == 1:
        mean, std = counted.mean(), counted.std()
    else:
        count, mean, variance = peers.moments(counted.flatten())
        std = (variance * count / (count - 1)).sqrt()
    normalized = (advantages - mean) / (std + 1e-8)
    return normalized if valid is None else normalized.masked_fill(~valid, 0.0)
