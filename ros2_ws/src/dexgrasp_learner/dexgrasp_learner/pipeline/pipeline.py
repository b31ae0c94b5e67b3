"""What a run asks of the order in which it collects rollouts and learns from them."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dexgrasp_learner.pool.env_pool import EnvPool
from dexgrasp_learner.rollout.rollout import Rollout


@dataclass(frozen=True)
class Collected:
    """What a run wants to know of a rollout.

    Attributes:
        policy_version: Updates that the acting policy had had.
        episode: [T, N, E] rows of the pool's `episode` result.
        ended: bool [T, N], which rows hold an episode.
        reward: Mean per step.
        invalid_steps: Steps without a real result, which nothing learns from.
    """

    policy_version: int
    episode: Tensor
    ended: Tensor
    reward: float
    invalid_steps: int


@dataclass(frozen=True)
class Learned:
    """An update: its figures, the rollout it was made from, and what failed beside it."""

    figures: dict[str, float]
    rollout: Collected
    failure: Exception | None = None


class Pipeline(Protocol):
    """Collects rollouts and learns from them; `simulators.pipeline` chooses one."""

    @property
    def is_ahead(self) -> bool:
        """Whether a rollout is collected from which nothing was learned yet."""
        ...

    def iterate(self, version: int, look_ahead: bool) -> Learned:
        """One update.

        Args:
            version: Updates so far.
            look_ahead: Whether the next rollout may be begun meanwhile.

        Raises:
            WorkerDied, WorkerTimeout: See `EnvPool`.
            NonFiniteLoss: See `Ppo.learn`.
        """
        ...

    def close(self) -> None:
        """Waits for an update that goes on; idempotent."""
        ...


def summarize(pool: EnvPool, rollout: Rollout, version: int) -> Collected:
    """What a run wants to know of a finished rollout that updates `version` of the policy made."""
    ended = rollout.terminated | rollout.truncated
    rewards, valid = rollout.rewards, rollout.valid
    if valid is not None:
        ended, rewards = ended & valid, rewards[valid]
    episode = pool.tensors["episode"][1:].clone()
    reward = rewards.mean().item()
    invalid_steps = 0 if valid is None else int((~valid).sum())
    return Collected(version, episode, ended.to(episode.device), reward, invalid_steps)
