"""Online distillation: the student acts, and the teacher labels each step with its own action."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dexgrasp_learner.algorithms.algorithm import restore_draws
from dexgrasp_learner.algorithms.auxiliary import auxiliary_losses
from dexgrasp_learner.algorithms.config import DistillationConfig
from dexgrasp_learner.algorithms.guards import check_finite, check_rollout, valid_mean
from dexgrasp_learner.algorithms.teacher import Teacher
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_learner.rollout.minibatches import Batch, batches, deal, shares
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.tasks.grasp.observations import PHASES

_PHASE = "phase"
"""The observation group that says which of `PHASES` a step belongs to."""


class Distillation:
    """Acts during a rollout and learns from the teacher's actions; same interface as `Ppo`.

    Ross, Gordon, Bagnell: "A reduction of imitation learning and structured prediction to
    no-regret online learning" (2011). The loss is the plain squared error in units of half the
    action range. It is not weighted by the teacher's 1 / sigma^2: such weights become very large
    when the teacher's standard deviations become small.

    Attributes:
        actor: The student.
        groups: Observation groups that the rollout must hold.
        memory_sizes: Memories that the rollout must hold.
        transitions: Environment steps so far, over all environments.
    """

    def __init__(
        self,
        actor: Actor,
        teacher: Teacher,
        config: DistillationConfig,
        seed: int = 0,
        peers: Peers | None = None,
    ) -> None:
        """Takes two nets that are already on the device used for computing.

        Args:
            actor: The student, which is trained.
            teacher: Labels; it does not change.
            config: Settings.
            seed: Seed of the noise and of the order of minibatches, which have one generator each.
            peers: Other ranks that train the same student on their own rollouts; None: none.

        Raises:
            ValueError: The two nets have different numbers of actions.
        """
        if actor.action_dim != teacher.action_dim:
            raise ValueError(
                f"the teacher has {teacher.action_dim} actions, the student {actor.action_dim}; "
                "train both on the same action"
            )
        self.peers = peers or Peers()
        self.actor = self._acting = actor
        self.teacher = teacher
        self.config = config
        self.device = actor.distribution.log_std.device
        auxiliary = (actor.auxiliary_group,) if actor.auxiliary_group else ()
        self.groups = tuple(dict.fromkeys((*actor.groups, *teacher.groups, *auxiliary, _PHASE)))
        self.memory_sizes = {"actor": actor.memory_size, "teacher": teacher.memory_size}
        self.optimizer = torch.optim.Adam(actor.parameters(), config.learning_rate, fused=True)
        self.noise = torch.Generator(self.device).manual_seed(seed)
        self.shuffle = torch.Generator().manual_seed(seed + 1)
        self.transitions = 0
        self._finished_share = self.teacher_share

    @property
    def teacher_share(self) -> float:
        """The probability that an environment's next step applies the teacher's action."""
        if self.transitions >= self.config.teacher_steps:
            return 0.0
        return 1 - self.transitions / self.config.teacher_steps

    def act_with_copies(self) -> None:
        """Lets a copy of the student act from now on; see `Ppo.act_with_copies`."""
        self._acting = copy.deepcopy(self.actor)

    def refresh_copies(self) -> None:
        """Loads the student's weights and statistics into the copy; no effect without a copy."""
        if self._acting is not self.actor:
            self._acting.load_state_dict(self.actor.state_dict())

    @torch.no_grad()
    def act(self, rollout: Rollout, slot: int) -> None:
        """Chooses the actions for one slot whose observations are in place.

        Writes the actions and, as `mean`, the teacher's actions clipped to [-1, 1].

        Args:
            rollout: Its slot holds observations and the results of the step before.
            slot: 0 to T - 1.
        """
        rollout.receive(slot)
        if self._acting.statistics_are_empty:
            self.actor.update_statistics(rollout.flat_observations(slot), self.peers)
            self.refresh_copies()
        observations, start = rollout.slot(slot)
        output = self._acting(observations, start, rollout.memory["actor"])
        taught = self.teacher(observations, start, rollout.memory["teacher"])
        rollout.memory["actor"], rollout.memory["teacher"] = output.memory, taught.memory
        label = taught.mean[0].clamp(-1, 1)  # [N, A]
        rollout.own.mean[slot] = label
        rollout.publish_actions(slot, self._applied(output.mean[0].clamp(-1, 1), label))
        self.transitions += rollout.num_envs * self.peers.size

    def finish(self, rollout: Rollout) -> None:
        """Reads the results of the last action into the rollout."""
        rollout.receive(rollout.horizon)
        self._finished_share = self.teacher_share

    def observe(self, rollout: Rollout) -> None:
        """Takes a finished rollout into the normalisation of observations; see `Ppo.observe`."""
        for slot in range(rollout.horizon):
            self.actor.update_statistics(rollout.flat_observations(slot), self.peers)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """`finish` and `learn`."""
        self.finish(rollout)
        return self.learn(rollout)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a finished rollout.

        Returns:
            Means over all optimizer steps of the loss terms `imitation` (squared, in units of half
            the action range) and `auxiliary` (0 without that head), of `estimate_error` (see
            `Ppo.learn`) and of `actor_grad_norm`; `imitation_reach` and so on, the part of
            `imitation` in each of the `PHASES` that occurred; `teacher_share` and `learning_rate`.

        Raises:
            NonFiniteLoss: The labels, a loss or a gradient are not finite.
        """
        check_rollout({"mean": rollout.own.mean})
        config, samples = self.config, self.samples(rollout)
        steps: list[dict[str, float]] = []
        with self._training_mode():
            for epoch in range(config.epochs):
                minibatches = deal(samples, config.minibatches, config.micro_batches, self.shuffle)
                pieces = batches(samples, minibatches, rollout.mirror.in_host)
                for minibatch in minibatches:
                    steps.append(self._optimize(shares(samples, minibatch), pieces, epoch))
        self.observe(rollout)
        metrics = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        return {
            **_by_phase(metrics),
            "teacher_share": self._finished_share,
            "learning_rate": config.learning_rate,
        }

    def samples(self, rollout: Rollout) -> Batch:
        """What an update deals out; see `Ppo.samples`."""
        samples = Batch.whole(rollout)
        return samples if self.actor.memory_size else samples.single_steps()

    def state_dict(self) -> dict[str, Any]:
        """Everything that later updates depend on except the teacher; tensors and plain values."""
        return {
            "actor": self.actor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.noise.get_state(),
            "shuffle": self.shuffle.get_state(),
            "transitions": self.transitions,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`: distillation continues as if it had not stopped."""
        self.actor.load_state_dict(state["actor"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_draws(self.noise, state["noise"])
        self.shuffle.set_state(state["shuffle"].cpu())
        self.transitions = state["transitions"]

    def _applied(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Actions [N, A]: the teacher's with probability `teacher_share`, else the student's.

        Noise is added to the student's actions only.
        """
        noise = torch.randn(student.shape, generator=self.noise, device=self.device)
        actions = student + self.config.noise_std * noise
        if self.teacher_share == 0:
            return actions
        draws = torch.rand(len(student), 1, generator=self.noise, device=self.device)  # [N, 1]
        return torch.where(draws < self.teacher_share, teacher, actions)

    @contextmanager
    def _training_mode(self) -> Iterator[None]:
        """Dropout is on inside, drawn from `shuffle`; a policy that acts never drops anything."""
        seed = int(torch.randint(2**62, (), generator=self.shuffle))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            self.actor.train()
            try:
                yield
            finally:
                self.actor.eval()

    def _optimize(
        self,
        shares_of_pieces: Sequence[float],
        pieces: Iterator[Batch],
        epoch: int,
    ) -> dict[str, float]:
        """One optimizer step; returns its terms.

        Raises:
            NonFiniteLoss: A term is not finite; the weights have not changed.
        """
        self.optimizer.zero_grad()
        terms: dict[str, Tensor] = {}
        for share_of_piece in shares_of_pieces:
            for share, losses in self._piecewise_losses(next(pieces)):
                share *= share_of_piece
                total = losses["imitation"]
                total = total + self.config.auxiliary_coefficient * losses["auxiliary"]
                (share * total).backward()
                for name, loss in losses.items():
                    terms[name] = terms.get(name, 0) + share * loss.detach()
        gradients = [weight.grad for weight in self.actor.parameters() if weight.grad is not None]
        self.peers.average_([*gradients, *terms.values()])
        terms["actor_grad_norm"] = nn.utils.clip_grad_norm_(
            self.actor.parameters(), self.config.max_grad_norm
        )
        values = check_finite(terms, f"epoch {epoch} of distillation")
        self.optimizer.step()
        return values

    def _piecewise_losses(self, batch: Batch) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """Losses of consecutive pieces of at most `bptt_steps`, each with its share of the steps.

        The memory is passed from piece to piece, without gradients.
        """
        horizon = len(batch.start)
        length = self.config.bptt_steps or horizon
        memory = batch.memory["actor"]
        for begin in range(0, horizon, length):
            piece = slice(begin, min(begin + length, horizon))
            observations = {name: t[piece] for name, t in batch.observations.items()}
            valid = None if batch.valid is None else batch.valid[piece]
            output = self.actor(observations, batch.start[piece], memory)  # mean [t, n, A]
            memory = output.memory.detach()  # [2, n, H]
            auxiliary = auxiliary_losses(self.actor, output, observations, valid)
            error = (output.mean - batch.mean[piece]).square().mean(-1)  # [t, n]
            imitation = valid_mean(error, valid)
            phases = _phase_terms(error.detach(), observations[_PHASE], valid)
            yield _share(batch, piece), {"imitation": imitation, **auxiliary, **phases}


def _share(batch: Batch, piece: slice) -> float:
    """Fraction of a batch's valid steps that lie within `piece` of the time axis."""
    if batch.valid is None:
        return (piece.stop - piece.start) / len(batch.start)
    return int(batch.valid[piece].sum()) / max(int(batch.valid.sum()), 1)


def _phase_terms(error: Tensor, phase: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
    """For each of `PHASES` its share of the steps, and its part in their mean error.

    Both are means over steps, so that those of pieces add up like losses; `_by_phase` divides.

    Args:
        error: [t, n].
        phase: One-hot [t, n, 3].
        valid: As for `valid_mean`.
    """
    terms = {}
    for number, name in enumerate(PHASES):
        inside = phase[..., number]  # [t, n]
        terms[f"share_{name}"] = valid_mean(inside, valid)
        terms[f"imitation_{name}"] = valid_mean(error * inside, valid)
    return terms


def _by_phase(metrics: Mapping[str, float]) -> dict[str, float]:
    """The mean error within each phase that occurred, instead of `_phase_terms`."""
    figures = {k: v for k, v in metrics.items() if not k.endswith(tuple(f"_{p}" for p in PHASES))}
    for name in PHASES:
        if share := metrics[f"share_{name}"]:
            figures[f"imitation_{name}"] = metrics[f"imitation_{name}"] / share
    return figures
