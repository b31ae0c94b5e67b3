"""Proximal policy optimisation with an asymmetric critic, memory and image observations."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from dexgrasp_learner.algorithms.gae import estimate_advantages, normalize_advantages
from dexgrasp_learner.networks.normalizer import RunningNormalizer
from dexgrasp_learner.networks.policy import Actor, Critic
from dexgrasp_learner.rollout import Batch, Rollout
from dexgrasp_sim.config import STRICT

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

_LEARNING_RATE_STEP = 1.5
"""Factor by which the adaptive learning rate moves, as in rsl_rl."""


@dataclass(frozen=True, config=STRICT)
class PpoConfig:
    """Settings of the update; the defaults are the laptop settings.

    Attributes:
        epochs: Passes over each rollout.
        minibatches: Optimizer steps per pass; each takes all steps of a share of environments.
        micro_batches: Pieces in which a minibatch is computed: less memory, the same result.
        gamma: Discount per step.
        gae_lambda: Of the advantage estimate.
        clip: Range of the importance ratio around 1, and of the value step where that is clipped.
        schedule: `adaptive` moves the actor's learning rate towards `desired_kl`, `fixed` not.
        learning_rate: Of the actor, at the start.
        min_learning_rate: Floor of the adaptive learning rate.
        max_learning_rate: Ceiling of the adaptive learning rate.
        desired_kl: KL divergence (nats) per update that the adaptive schedule aims at.
        critic_learning_rate: Fixed rate of the critic; None: it follows the actor's.
        value_coefficient: Weight of the squared value error.
        clip_value_loss: Whether a value may move by at most `clip` per update.
        normalize_values: Whether the critic learns returns in running units of deviation.
        entropy_coefficient: Reward for a wide action distribution.
        bounds_coefficient: Weight of the squared excess of mean actions over `action_bound`.
        action_bound: See `bounds_coefficient`; environments clip actions to [-1, 1].
        auxiliary_coefficient: Weight of the actor's auxiliary loss, if it has that head.
        max_grad_norm: Gradients of each net are scaled down to this norm.
    """

    epochs: Count = 5
    minibatches: Count = 4
    micro_batches: Count = 1
    gamma: Fraction = 0.98
    gae_lambda: Fraction = 0.95
    clip: Positive = 0.2
    schedule: Literal["adaptive", "fixed"] = "adaptive"
    learning_rate: Positive = 1e-3
    min_learning_rate: Positive = 5e-5
    max_learning_rate: Positive = 3e-3
    desired_kl: Positive = 0.025
    critic_learning_rate: Positive | None = None
    value_coefficient: Positive = 2.0
    clip_value_loss: bool = False
    normalize_values: bool = False
    entropy_coefficient: NonNegative = 0.0
    bounds_coefficient: NonNegative = 0.0
    action_bound: Positive = 1.1
    auxiliary_coefficient: NonNegative = 1.0
    max_grad_norm: Positive = 1.0


class NonFiniteLoss(RuntimeError):
    """Something to learn from, a loss or a gradient was NaN or infinite.

    The weights are those before the optimizer step that would have used it.
    """


class Ppo:
    """Acts during a rollout and learns from it.

    Schulman et al.: "Proximal policy optimization algorithms" (2017). Each use is one cycle:
    `act` for slots 0 to T - 1 in order, then `update`.

    Attributes:
        groups: Observation groups that the rollout must hold.
        memory_sizes: Memories that the rollout must hold.
    """

    def __init__(self, actor: Actor, critic: Critic, config: PpoConfig, seed: int = 0) -> None:
        """Takes two nets that are on the device to compute on.

        Args:
            actor: Learns to act.
            critic: Learns the values.
            config: Settings.
            seed: Of the exploration noise and of the order of minibatches, one generator each.
        """
        self.actor = actor
        self.critic = critic
        self.config = config
        self.device = actor.distribution.log_std.device
        auxiliary = (actor.auxiliary_group,) if actor.auxiliary_group else ()
        self.groups = tuple(dict.fromkeys((*actor.groups, *critic.groups, *auxiliary)))
        self.memory_sizes = {"actor": actor.memory_size, "critic": critic.memory_size}
        self.value_normalizer = RunningNormalizer(1, min_std=1e-3).to(self.device)
        rate = config.learning_rate
        self.actor_optimizer = torch.optim.Adam(actor.parameters(), rate)
        self.critic_optimizer = torch.optim.Adam(
            critic.parameters(), config.critic_learning_rate or rate
        )
        self.noise = torch.Generator(self.device).manual_seed(seed)
        self.shuffle = torch.Generator().manual_seed(seed + 1)

    @property
    def learning_rate(self) -> float:
        """The actor's present learning rate."""
        return self.actor_optimizer.param_groups[0]["lr"]

    @torch.no_grad()
    def act(self, rollout: Rollout, slot: int) -> None:
        """Draws the actions for one slot whose observations are in place.

        Writes actions, mean, log_prob and values of the slot and advances the memories.

        Args:
            rollout: Its slot holds observations and the results of the step before.
            slot: 0 to T - 1.
        """
        rollout.receive(slot)
        observations, start = rollout.slot(slot)
        if self.actor.statistics_are_empty:
            self._update_statistics(rollout, range(slot, slot + 1))
        output = self.actor(observations, start, rollout.memory["actor"])
        actions = self.actor.distribution.sample(output.mean, self.noise)
        rollout.memory["actor"] = output.memory
        rollout.mean[slot] = output.mean[0]
        rollout.log_prob[slot] = self.actor.distribution.log_prob(output.mean, actions)[0]
        rollout.publish_actions(slot, actions[0])
        rollout.values[slot], rollout.memory["critic"] = self._value(rollout, slot)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a rollout whose T + 1 slots are complete.

        Returns:
            Means over all optimizer steps of the loss terms `surrogate`, `value`, `auxiliary`
            (0 without that head), `bounds`, and of `entropy` and `kl` (nats), `clip_fraction`,
            `actor_grad_norm`, `critic_grad_norm`; `explained_variance` of the returns by the
            critic; `learning_rate` and `action_std` (mean over actions) after the update.

        Raises:
            NonFiniteLoss: The rollout or a loss is not finite.
        """
        rollout.receive(rollout.horizon)
        self._estimate(rollout)
        old_log_std = self.actor.distribution.log_std.detach().clone()
        steps: list[dict[str, float]] = []
        for epoch in range(self.config.epochs):
            for minibatch in rollout.minibatches(
                self.config.minibatches, self.config.micro_batches, self.shuffle
            ):
                where = f"epoch {epoch}, learning rate {self.learning_rate:.3g}"
                terms = self._accumulate(rollout, minibatch, old_log_std)
                steps.append(check_finite(terms, where))
                if len(steps) > 1:  # before the first step the policy is the one that acted
                    self._adapt_learning_rate(steps[-1]["kl"])
                self._step()
        self._update_statistics(rollout, range(rollout.horizon))
        metrics = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        return {
            **metrics,
            "explained_variance": _explained_variance(rollout),
            "learning_rate": self.learning_rate,
            "action_std": self.actor.distribution.std.mean().item(),
        }

    def losses(self, batch: Batch, old_log_std: Tensor) -> dict[str, Tensor]:
        """Every term of the loss for a batch, without its weight; scalars.

        Args:
            batch: From `Rollout.batch`.
            old_log_std: float32 [A], of the distribution that drew the actions.

        Returns:
            `surrogate`, `value`, `auxiliary`, `bounds`, `entropy`, `kl`, `clip_fraction`.
        """
        config, distribution = self.config, self.actor.distribution
        output = self.actor(batch.observations, batch.start, batch.memory["actor"])
        value = self.critic(batch.observations, batch.start, batch.memory["critic"]).value
        ratio = (distribution.log_prob(output.mean, batch.actions) - batch.log_prob).exp()
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        auxiliary = ratio.new_zeros(())
        if output.auxiliary is not None:
            target = batch.observations[str(self.actor.auxiliary_group)]
            auxiliary = self.actor.auxiliary_loss(output.auxiliary, target)
        excess = (output.mean.abs() - config.action_bound).clamp_min(0)
        with torch.no_grad():
            kl = distribution.kl_from(batch.mean, old_log_std, output.mean).mean()
        return {
            "surrogate": -torch.min(batch.advantages * ratio, batch.advantages * clipped).mean(),
            "value": self._value_loss(value, batch),
            "auxiliary": auxiliary,
            "bounds": excess.square().sum(-1).mean(),
            "entropy": distribution.entropy(),
            "kl": kl,
            "clip_fraction": ((ratio.detach() - 1).abs() > config.clip).float().mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that later updates depend on; tensors and plain values only."""
        return {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "value_normalizer": self.value_normalizer.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "noise": self.noise.get_state(),
            "shuffle": self.shuffle.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`: training goes on as if it had not stopped."""
        for name in ("actor", "critic", "value_normalizer", "actor_optimizer", "critic_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.noise.set_state(state["noise"].cpu())
        self.shuffle.set_state(state["shuffle"].cpu())

    def _value(self, rollout: Rollout, slot: int) -> tuple[Tensor, Tensor]:
        """Values [N] of a slot in units of the reward, and the critic's memory after it."""
        observations, start = rollout.slot(slot)
        value, memory = self.critic(observations, start, rollout.memory["critic"])
        if self.config.normalize_values:
            value = self.value_normalizer.denormalize(value)
        return value[0], memory

    @torch.no_grad()
    def _estimate(self, rollout: Rollout) -> None:
        """Fills advantages and returns.

        The critic's memory stays as it is: the state after the rollout is also slot 0 of the next
        one, where the memory advances over it.
        """
        rollout.values[-1], _ = self._value(rollout, rollout.horizon)
        check_rollout(rollout, ("rewards", "values", "mean"))
        advantages, returns = estimate_advantages(
            rollout.rewards,
            rollout.values,
            rollout.terminated,
            rollout.truncated,
            self.config.gamma,
            self.config.gae_lambda,
        )
        rollout.advantages.copy_(normalize_advantages(advantages))
        rollout.returns.copy_(returns)
        if self.config.normalize_values:
            self.value_normalizer.update(returns.unsqueeze(-1))

    def _accumulate(
        self, rollout: Rollout, minibatch: list[Tensor], old_log_std: Tensor
    ) -> dict[str, Tensor]:
        """Leaves the clipped gradients of a minibatch in the nets; returns its terms, scalars."""
        self.actor_optimizer.zero_grad()
        self.critic_optimizer.zero_grad()
        envs = sum(len(micro_batch) for micro_batch in minibatch)
        terms: dict[str, Tensor] = {}
        for micro_batch in minibatch:
            share = len(micro_batch) / envs
            losses = self.losses(rollout.batch(micro_batch), old_log_std)
            (share * self._total(losses)).backward()
            for name, loss in losses.items():
                terms[name] = terms.get(name, 0) + share * loss.detach()
        limit = self.config.max_grad_norm
        terms["actor_grad_norm"] = nn.utils.clip_grad_norm_(self.actor.parameters(), limit)
        terms["critic_grad_norm"] = nn.utils.clip_grad_norm_(self.critic.parameters(), limit)
        return terms

    def _step(self) -> None:
        self.actor_optimizer.step()
        self.critic_optimizer.step()
        self.actor.distribution.clamp_std()

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        config = self.config
        return (
            losses["surrogate"]
            + config.value_coefficient * losses["value"]
            + config.auxiliary_coefficient * losses["auxiliary"]
            + config.bounds_coefficient * losses["bounds"]
            - config.entropy_coefficient * losses["entropy"]
        )

    def _value_loss(self, value: Tensor, batch: Batch) -> Tensor:
        """Mean squared error; where values are normalised, in deviations of the returns."""
        returns, old = batch.returns, batch.values
        if self.config.normalize_values:
            returns, old = self.value_normalizer(returns), self.value_normalizer(old)
        error = (value - returns).square()
        if self.config.clip_value_loss:
            clipped = old + (value - old).clamp(-self.config.clip, self.config.clip)
            error = torch.max(error, (clipped - returns).square())
        return error.mean()

    def _adapt_learning_rate(self, kl: float) -> None:
        """Moves the learning rate against the KL divergence of a minibatch."""
        config = self.config
        if config.schedule == "fixed":
            return
        rate = self.learning_rate
        if kl > 2 * config.desired_kl:
            rate = max(config.min_learning_rate, rate / _LEARNING_RATE_STEP)
        elif kl < config.desired_kl / 2:
            rate = min(config.max_learning_rate, rate * _LEARNING_RATE_STEP)
        _set_learning_rate(self.actor_optimizer, rate)
        if config.critic_learning_rate is None:
            _set_learning_rate(self.critic_optimizer, rate)

    def _update_statistics(self, rollout: Rollout, slots: range) -> None:
        for slot in slots:
            observations, _ = rollout.slot(slot)
            self.actor.update_statistics(observations)
            self.critic.update_statistics(observations)


def check_finite(terms: Mapping[str, Tensor], where: str) -> dict[str, float]:
    """Scalars as floats.

    Raises:
        NonFiniteLoss: One is NaN or infinite; the message holds all of them.
    """
    values = dict(zip(terms, torch.stack([*terms.values()]).tolist(), strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        shown = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
        raise NonFiniteLoss(
            f"{', '.join(bad)} not finite in {where} ({shown}); look at the observations and "
            "rewards of this rollout, or lower the learning rate"
        )
    return values


def check_rollout(rollout: Rollout, names: Sequence[str]) -> None:
    """Looks through tensors [T, N, ...] of a rollout, by attribute name.

    Raises:
        NonFiniteLoss: One holds NaN or infinity; the message names the first place.
    """
    for name in names:
        tensor: Tensor = getattr(rollout, name)
        bad = (~tensor.isfinite()).nonzero()
        if len(bad) > 0:
            step, env = bad[0, :2].tolist()
            raise NonFiniteLoss(
                f"{name} of step {step}, environment {env} is {tensor[step, env].tolist()} "
                f"({len(bad)} such values); look at what that environment observed"
            )


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _explained_variance(rollout: Rollout) -> float:
    """1 - Var(returns - values) / Var(returns); 0 where the returns do not vary."""
    variance = rollout.returns.var()
    if variance == 0:
        return 0.0
    return (1 - (rollout.returns - rollout.values[:-1]).var() / variance).item()
