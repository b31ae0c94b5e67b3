"""Extra learning of what an actor estimates, while its actions stay as they are.

Cobbe, Hilton, Klimov, Schulman: "Phasic policy gradient" (2021). The policy needs small steps,
because every change of the features changes the policy; an estimate from images needs large ones.
So the auxiliary loss gets passes of its own at its own learning rate, with the divergence from the
policy before them as a second loss.
"""

import copy
from collections import deque
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dexgrasp_learner.algorithms.auxiliary import auxiliary_losses
from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.guards import check_finite, valid_mean
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_learner.rollout.minibatches import Batch

_ROLLOUTS_MIXED = 4
"""Each optimizer step mixes samples of this many rollouts."""


class AuxiliaryPhase:
    """Passes over the latest rollouts for the auxiliary loss of an actor.

    A rollout of 16 steps shows each environment's object at one place. More rollouts show more
    places, and keep the estimate from fitting those of one.
    """

    def __init__(self, actor: Actor, config: PpoConfig, peers: Peers) -> None:
        """Args:
        actor: Has an auxiliary head.
        config: Settings; `auxiliary_epochs` is above 0.
        peers: Other ranks that train the same actor.
        """
        self._actor, self._config, self._peers = actor, config, peers
        # the exploration noise is no part of it
        self._weights = [
            weight for name, weight in actor.named_parameters() if "distribution" not in name
        ]
        rate = config.auxiliary_learning_rate
        self.optimizer = torch.optim.Adam(self._weights, rate, fused=True)
        self._rollouts: deque[Batch] = deque(maxlen=config.auxiliary_rollouts)

    def learn(self, samples: Batch, shuffle: torch.Generator) -> dict[str, float]:
        """Makes all passes.

        Args:
            samples: As `Ppo.samples` gives them.
            shuffle: Draws the samples of each step, with replacement.

        Returns:
            `auxiliary_phase`, the mean auxiliary loss, and `auxiliary_phase_kl`, the mean
            divergence from the policy before the phase, nats.

        Raises:
            NonFiniteLoss: A loss is not finite.
        """
        self._rollouts.append(self._copied(samples))
        before = copy.deepcopy(self._actor).requires_grad_(False)
        config = self._config
        size = max(samples.num_envs // config.minibatches // _ROLLOUTS_MIXED, 1)
        count = config.auxiliary_epochs * config.minibatches
        steps = [self._step(size, shuffle, before, number) for number in range(count)]
        return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def _copied(self, samples: Batch) -> Batch:
        """A copy that the next rollout does not overwrite, without what the actor does not see."""
        actor = self._actor
        groups = {*actor.groups, actor.auxiliary_group}
        fields = {
            name: value.clone() for name, value in vars(samples).items() if torch.is_tensor(value)
        }
        observations = {
            name: value.clone() for name, value in samples.observations.items() if name in groups
        }
        memory = {name: value.clone() for name, value in samples.memory.items()}
        return replace(samples, **fields, observations=observations, memory=memory)

    def _step(
        self, size: int, shuffle: torch.Generator, before: Actor, number: int
    ) -> dict[str, float]:
        self.optimizer.zero_grad()
        terms: dict[str, Tensor] = {}
        share = 1 / _ROLLOUTS_MIXED
        for chosen in torch.randint(len(self._rollouts), (_ROLLOUTS_MIXED,), generator=shuffle):
            rollout = self._rollouts[int(chosen)]
            rows = torch.randint(rollout.num_envs, (size,), generator=shuffle)
            losses = self._losses(rollout.rows(rows), before)
            (share * (losses["auxiliary_phase"] + losses["auxiliary_phase_kl"])).backward()
            for name, loss in losses.items():
                terms[name] = terms.get(name, 0) + share * loss.detach()
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        self._peers.average_([*gradients, *terms.values()])
        nn.utils.clip_grad_norm_(self._weights, self._config.max_grad_norm)
        values = check_finite(terms, f"step {number} of the auxiliary phase")
        self.optimizer.step()
        return values

    def _losses(self, batch: Batch, before: Actor) -> dict[str, Tensor]:
        actor, memory = self._actor, batch.memory["actor"]
        output = actor(batch.observations, batch.start, memory)
        old = before(batch.observations, batch.start, memory).mean  # [T, n, A]
        auxiliary = auxiliary_losses(actor, output, batch.observations, batch.valid)["auxiliary"]
        moved = (output.mean - old) / actor.distribution.std.detach()  # [T, n, A]
        divergence = 0.5 * moved.square().sum(-1)  # [T, n], nats: the deviations are the same
        return {
            "auxiliary_phase": auxiliary,
            "auxiliary_phase_kl": valid_mean(divergence, batch.valid),
        }

    def state_dict(self) -> dict[str, Any]:
        """What later phases depend on besides the actor, but for the rollouts before the latest:
        they would make a checkpoint a hundred times as large, so a resumed run collects anew.
        """
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; the learning rate stays that of the config."""
        self.optimizer.load_state_dict(state)
        for group in self.optimizer.param_groups:
            group["lr"] = self._config.auxiliary_learning_rate
