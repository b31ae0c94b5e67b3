"""Proximal policy optimisation with an asymmetric critic, memory and image observations."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dexgrasp_learner.algorithms.algorithm import restore_draws
from dexgrasp_learner.algorithms.auxiliary import auxiliary_losses
from dexgrasp_learner.algorithms.auxiliary_phase import AuxiliaryPhase
from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.gae import estimate_advantages, normalize_advantages
from dexgrasp_learner.algorithms.gradients import Gradients
from dexgrasp_learner.algorithms.guards import check_finite, check_rollout, valid_mean
from dexgrasp_learner.networks.normalizer import RunningNormalizer
from dexgrasp_learner.networks.policy import Actor, Critic
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_learner.rollout.minibatches import Batch, batches, deal, shares
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.devices import computes_in_bfloat16

_LEARNING_RATE_STEP = 1.5
"""Factor by which the adaptive learning rate moves, as in rsl_rl."""
_MOST_LAID_OUT = {"cpu": 2**26, "cuda": 2**30}
"""Values of images up to which they are laid out once per update, see `Trunk.lay_out`."""


class _Nets(NamedTuple):
    """The nets that act and that estimate the values of a rollout."""

    actor: Actor
    critic: Critic
    value_normalizer: RunningNormalizer


class Ppo:
    """Acts during a rollout and learns from it.

    Schulman et al.: "Proximal policy optimization algorithms" (2017). Each cycle calls `act` for
    slots 0 to T - 1 in order, then `finish` and `learn` (or `update`, which calls both).
    After `act_with_copies`, `learn` may run in another thread during the next cycle's `act`:
    importance ratios refer to the copies, and only `refresh_copies` changes these.

    Attributes:
        groups: Observation groups that the rollout must hold.
        memory_sizes: Memories that the rollout must hold.
    """

    def __init__(
        self,
        actor: Actor,
        critic: Critic,
        config: PpoConfig,
        seed: int = 0,
        peers: Peers | None = None,
    ) -> None:
        """Takes two nets that are already on the device used for computing.

        Args:
            actor: Learns to act.
            critic: Learns the values.
            config: Settings.
            seed: Seed of the exploration noise and of the order of minibatches, which have one
                generator each.
            peers: Other ranks that train the same nets on their own rollouts; None: none.
        """
        self.peers = peers or Peers()
        self.actor = actor
        self.critic = critic
        self.config = config
        self.device = actor.distribution.log_std.device
        auxiliary = (actor.auxiliary_group,) if actor.auxiliary_group else ()
        self.groups = tuple(dict.fromkeys((*actor.groups, *critic.groups, *auxiliary)))
        self.memory_sizes = {"actor": actor.memory_size, "critic": critic.memory_size}
        self.value_normalizer = RunningNormalizer(1, min_std=1e-3).to(self.device)
        self._acting = self._nets = _Nets(actor, critic, self.value_normalizer)
        rate = config.learning_rate
        self.actor_optimizer = torch.optim.Adam(actor.parameters(), rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(
            critic.parameters(), config.critic_learning_rate or rate, fused=True
        )
        has_memory = any(self.memory_sizes.values())
        parameters = (*actor.parameters(), *critic.parameters())
        self._gradients = Gradients(self.losses, self._total, parameters, has_memory)
        self._phase = None
        if actor.auxiliary_group and config.auxiliary_epochs:
            self._phase = AuxiliaryPhase(actor, config, self.peers)
        self.noise = torch.Generator(self.device).manual_seed(seed)
        self.shuffle = torch.Generator().manual_seed(seed + 1)
        self._in_bfloat16 = (
            config.precision == "bfloat16" and not has_memory and computes_in_bfloat16(self.device)
        )

    @property
    def learning_rate(self) -> float:
        """The actor's present learning rate."""
        return self.actor_optimizer.param_groups[0]["lr"]

    def act_with_copies(self) -> None:
        """Lets copies of the nets act from now on; only `refresh_copies` changes the copies."""
        self._acting = copy.deepcopy(self._nets)

    def refresh_copies(self) -> None:
        """Loads the present weights and statistics into the copies; no effect without copies."""
        if self._acting is not self._nets:
            for acting, net in zip(self._acting, self._nets):
                acting.load_state_dict(net.state_dict())

    @torch.no_grad()
    def act(self, rollout: Rollout, slot: int) -> None:
        """Draws the actions for one slot whose observations are in place.

        Writes actions, mean, log_prob and values of the slot and advances the memories.

        Args:
            rollout: Its slot holds observations and the results of the step before.
            slot: 0 to T - 1.
        """
        rollout.receive(slot)
        if self._acting.actor.statistics_are_empty:
            self._update_statistics(rollout, range(slot, slot + 1))
            self.refresh_copies()
        actor = self._acting.actor
        observations, start = rollout.slot(slot)
        output = actor(observations, start, rollout.memory["actor"])  # mean [1, N, A]
        actions = self._draw(rollout, slot, output.mean)  # [1, N, A]
        rollout.memory["actor"] = output.memory
        rollout.own.mean[slot] = output.mean[0]
        rollout.own.log_prob[slot] = actor.distribution.log_prob(output.mean, actions)[0]
        rollout.publish_actions(slot, actions[0])
        rollout.own.values[slot], rollout.memory["critic"] = self._value(rollout, slot)

    @torch.no_grad()
    def finish(self, rollout: Rollout) -> None:
        """Reads the results of the last action and estimates the value of the state after it.

        The critic's memory does not change: the state after the rollout is also slot 0 of the next
        one, and the memory advances there.
        """
        rollout.receive(rollout.horizon)
        rollout.own.values[-1], _ = self._value(rollout, rollout.horizon)
        rollout.log_std = self._acting.actor.distribution.log_std.detach().clone()

    def observe(self, rollout: Rollout) -> None:
        """Takes a finished rollout into the normalisation of observations, without learning.

        Before the first update: statistics of slot 0 alone, where all robots stand in one posture,
        would let the inputs of that update saturate.
        """
        self._update_statistics(rollout, range(rollout.horizon))

    def update(self, rollout: Rollout) -> dict[str, float]:
        """`finish` and `learn`."""
        self.finish(rollout)
        return self.learn(rollout)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a finished rollout.

        Returns:
            Means over all optimizer steps of the loss terms `surrogate`, `value`, `auxiliary`
            (0 without that head), `bounds`, and of `entropy` and `kl` (nats), `clip_fraction`,
            `saturated_actions` (the share of mean actions beyond [-1, 1]), `actor_grad_norm`,
            `critic_grad_norm`, and with an auxiliary head of `estimate_error`, the distance of the
            estimate from its target in that group's unit; with `auxiliary_epochs` what
            `AuxiliaryPhase.learn` gives; `explained_variance` of the returns by the critic;
            `learning_rate` and `action_std` (mean over actions) after the update.

        Raises:
            NonFiniteLoss: The rollout or a loss is not finite.
        """
        self._estimate(rollout)
        samples = self.samples(rollout)
        steps: list[dict[str, float]] = []
        for epoch in range(self.config.epochs):
            minibatches = self.deal(samples)
            pieces = batches(samples, minibatches, rollout.mirror.in_host)
            for minibatch in minibatches:
                where = f"epoch {epoch}, learning rate {self.learning_rate:.3g}"
                terms = self._accumulate(shares(samples, minibatch), pieces, rollout.log_std)
                steps.append(check_finite(terms, where))
                if len(steps) > 1:  # before the first step the policy is still the one that acted
                    self._adapt_learning_rate(steps[-1]["kl"])
                self._step()
        extra: dict[str, float] = {}
        if self._phase is not None:
            extra = self._phase.learn(self._as_stored(rollout), self.shuffle)
        self.observe(rollout)
        metrics = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        return {
            **metrics,
            **extra,
            "explained_variance": _explained_variance(rollout),
            "learning_rate": self.learning_rate,
            "action_std": self.actor.distribution.std.mean().item(),
        }

    def samples(self, rollout: Rollout) -> Batch:
        """What an update deals out: single steps, or whole environments if a net has a memory."""
        samples = self._as_stored(rollout)
        images = [image for image in samples.observations.values() if image.dim() > 3]
        values = sum(image.numel() for image in images)
        if rollout.mirror.in_host or values > _MOST_LAID_OUT[self.device.type]:
            return samples
        laid_out = {}
        for net in (self.actor, self.critic):
            laid_out |= net.trunk.lay_out(samples.observations)
        return replace(samples, observations={**samples.observations, **laid_out})

    def _as_stored(self, rollout: Rollout) -> Batch:
        samples = Batch.whole(rollout)
        return samples if any(self.memory_sizes.values()) else samples.single_steps()

    def deal(self, samples: Batch) -> list[list[Tensor]]:
        """The minibatches of one pass over `samples`, as lists of micro-batches; see `deal`."""
        config = self.config
        return deal(samples, config.minibatches, config.micro_batches, self.shuffle)

    def losses(self, batch: Batch, old_log_std: Tensor) -> dict[str, Tensor]:
        """All terms of the loss for a batch, unweighted; scalars.

        Args:
            batch: Of `samples`.
            old_log_std: float32 [A], of the distribution that drew the actions.

        Returns:
            `surrogate`, `value`, `auxiliary`, `bounds`, `entropy`, `kl`, `clip_fraction`,
            `saturated_actions`, and with an auxiliary head `estimate_error`.
        """
        config, distribution = self.config, self.actor.distribution
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            output = self.actor(batch.observations, batch.start, batch.memory["actor"])
            value = self.critic(batch.observations, batch.start, batch.memory["critic"]).value
        output, value = output._replace(mean=output.mean.float()), value.float()
        log_prob = distribution.log_prob(output.mean, batch.actions)  # [T, n]
        ratio = (log_prob - batch.log_prob).exp()  # [T, n]
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        auxiliary = auxiliary_losses(self.actor, output, batch.observations, batch.valid)
        excess = (output.mean.abs() - config.action_bound).clamp_min(0)  # [T, n, A]
        with torch.no_grad():
            kl = distribution.kl_from(batch.mean, old_log_std, output.mean)  # [T, n]
        gain, valid = torch.min(batch.advantages * ratio, batch.advantages * clipped), batch.valid
        return {
            "surrogate": -valid_mean(gain, valid),
            "value": self._value_loss(value, batch),
            "bounds": valid_mean(excess.square().sum(-1), valid),
            "entropy": distribution.entropy(),
            "kl": valid_mean(kl, valid),
            "clip_fraction": valid_mean(((ratio.detach() - 1).abs() > config.clip).float(), valid),
            "saturated_actions": valid_mean((output.mean.detach().abs() > 1).float(), valid),
            **auxiliary,
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
            **({} if self._phase is None else {"auxiliary_phase": self._phase.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`: training continues as if it had not stopped.

        An auxiliary phase that the state does not have begins anew.
        """
        for name in ("actor", "critic", "value_normalizer", "actor_optimizer", "critic_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        if self._phase is not None and "auxiliary_phase" in state:
            self._phase.load_state_dict(state["auxiliary_phase"])
        restore_draws(self.noise, state["noise"])
        self.shuffle.set_state(state["shuffle"].cpu())

    def _draw(self, rollout: Rollout, slot: int, mean: Tensor) -> Tensor:
        """Actions [1, N, A] around means, whose noise correlates with that of the slot before.

        The first slot draws anew, so that nothing but the rollout decides on its noise.
        Hollenstein et al.: "Colored noise in PPO: improved exploration and performance through
        correlated action sampling" (2024).
        """
        distribution, correlation = self._acting.actor.distribution, self.config.noise_correlation
        before = None
        if slot and correlation:
            moved = rollout.actions[slot - 1] - rollout.own.mean[slot - 1]  # [N, A]
            before = (moved / distribution.std)[None]
        return distribution.sample(mean, self.noise, before, correlation)

    def _value(self, rollout: Rollout, slot: int) -> tuple[Tensor, Tensor]:
        """Values [N] of a slot in units of the reward, and the critic's memory after it."""
        observations, start = rollout.slot(slot)
        value, memory = self._acting.critic(observations, start, rollout.memory["critic"])
        if self.config.normalize_values:
            value = self._acting.value_normalizer.denormalize(value)
        return value[0], memory

    @torch.no_grad()
    def _estimate(self, rollout: Rollout) -> None:
        """Fills advantages and returns."""
        own = rollout.own
        check_rollout({"rewards": rollout.rewards, "values": own.values, "mean": own.mean})
        advantages, returns = estimate_advantages(
            rollout.rewards,
            own.values,
            rollout.terminated,
            rollout.truncated,
            self.config.gamma,
            self.config.gae_lambda,
            rollout.valid,
        )
        own.advantages.copy_(normalize_advantages(advantages, rollout.valid, self.peers))
        own.returns.copy_(returns)
        if self.config.normalize_values:
            counted = returns if rollout.valid is None else returns[rollout.valid]
            self.value_normalizer.update(counted.unsqueeze(-1), self.peers)

    def _accumulate(
        self, shares_of_pieces: list[float], pieces: Iterator[Batch], old_log_std: Tensor
    ) -> dict[str, Tensor]:
        """Computes the clipped gradients of a minibatch; returns its terms, scalars."""
        self.actor_optimizer.zero_grad()
        self.critic_optimizer.zero_grad()
        terms: dict[str, Tensor] = {}
        for share in shares_of_pieces:
            added = self._gradients.add(next(pieces), old_log_std, share)
            terms = {name: terms.get(name, 0) + term for name, term in added.items()}
        self.peers.average_([*self._gradients.present(), *terms.values()])
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
        """Mean squared error of values [T, n]; of normalised ones if the critic learns these."""
        returns, old = batch.returns, batch.values
        if self.config.normalize_values:
            returns, old = self.value_normalizer(returns), self.value_normalizer(old)
        error = (value - returns).square()
        if self.config.clip_value_loss:
            clipped = old + (value - old).clamp(-self.config.clip, self.config.clip)
            error = torch.max(error, (clipped - returns).square())
        return valid_mean(error, batch.valid)

    def _adapt_learning_rate(self, kl: float) -> None:
        """Lowers the learning rate if a minibatch's KL divergence is high, raises it if low."""
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
            observations = rollout.flat_observations(slot)
            self.actor.update_statistics(observations, self.peers)
            self.critic.update_statistics(observations, self.peers)


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _explained_variance(rollout: Rollout) -> float:
    """1 - Var(returns - values) / Var(returns); 0 where returns do not vary or there are none."""
    own = rollout.own
    returns, errors = own.returns, own.returns - own.values[:-1]
    if rollout.valid is not None:
        returns, errors = returns[rollout.valid], errors[rollout.valid]
    variance = returns.var()
    return (1 - errors.var() / variance).item() if variance > 0 else 0.0
