"""Which weights a run exports: the best that were evaluated, newest ones or their average.

The success of the newest weights jumps by up to 15 points between iterations; an average over
iterations is steadier, but lags behind while a policy still improves. So both are evaluated.
"""

import copy
from dataclasses import asdict, dataclass
from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dexgrasp_learner.evaluation.episodes import evaluate_actor
from dexgrasp_learner.evaluation.figures import Evaluation, success_interval
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.run.config import TrainingConfig
from dexgrasp_sim.tasks.grasp.config import GraspConfig

EVALUATION_SEED = 1_000_003
"""Evaluations draw from seeds that no training run uses."""
_FRESH, _PART = 500_009, 10_007
"""Distances between the seeds of the usual and of further episodes, and of the parts of these."""
_EPISODES_AT_ONCE = 128


@dataclass(frozen=True)
class Choice:
    """The policy that a run exports.

    Attributes:
        iteration: Iteration after which it was evaluated.
        averaged: Whether it is the average over iterations.
        difficulty: Of the task then.
        episodes: How many it was evaluated on, by its mean action.
        success: Their success rate.
        success_low: Lower end of the 95 % interval of the rate, by which policies are compared: of
            two equal rates, the one from more episodes is better.
    """

    iteration: int
    averaged: bool
    difficulty: float
    episodes: int
    success: float
    success_low: float


class Selection:
    """Follows the weights of an actor and keeps the best that were evaluated.

    Attributes:
        choice: What is known about the best; None before the first evaluation.
    """

    def __init__(
        self, actor: Actor, config: TrainingConfig, seed: int, device: str = "cpu"
    ) -> None:
        """Args:
        actor: The one that learns.
        config: When and how to evaluate.
        seed: Of the run.
        device: Where the environments of evaluations compute.
        """
        self.choice: Choice | None = None
        self._actor, self._config = actor, config
        self._seed, self._device = EVALUATION_SEED + seed, device
        average = get_ema_multi_avg_fn(config.averaging_decay)
        self._average = AveragedModel(actor, multi_avg_fn=average)
        self._best = copy.deepcopy(actor)

    @property
    def policy(self) -> Actor:
        """The actor to export: the best evaluated, before any evaluation the newest."""
        return self._actor if self.choice is None else self._best

    @property
    def has_reached_target(self) -> bool:
        """Whether the best has reached `target_success` in all its further episodes."""
        choice, config = self.choice, self._config
        return (
            choice is not None
            and choice.success >= config.target_success
            and choice.episodes >= config.confirmation_episodes
        )

    def follow(self) -> None:
        """Takes the newest weights into the average; to be called after each update."""
        self._average.update_parameters(self._actor)

    def evaluate(self, task: GraspConfig, iteration: int) -> dict[str, float]:
        """Evaluates newest and averaged weights, and chooses the better if it is the best so far.

        Both act in the same episodes, which are the same at each call. The better one also acts in
        further ones, never used before, unless its 95 % interval excludes that it has reached the
        target. Only these count then: the better of two, and the first of many evaluations to
        reach a target, owe part of their success to the episodes by which they were found.
        Policies of other difficulties are not compared: the first one evaluated at a new
        difficulty replaces the best.

        Args:
            task: At the difficulty of the evaluation.
            iteration: Updates so far.

        Returns:
            `evaluation/...` for the record of the iteration.
        """
        config = self._config
        candidates = {True: self._average.module, False: self._actor}  # averaged ones if equal
        results = {
            averaged: self._run(actor, task, config.evaluation_episodes, self._seed)
            for averaged, actor in candidates.items()
        }
        averaged = max(results, key=lambda key: results[key].success_rate)
        result = results[averaged]
        counted = [result]
        if result.success_high >= config.target_success:
            counted = self._confirm(candidates[averaged], task, iteration)
        successes, episodes = _count(counted)
        rate, (low, _) = round(successes / episodes, 4), success_interval(successes, episodes)
        found = Choice(iteration, averaged, task.difficulty, episodes, rate, low)
        self._consider(found, candidates[averaged])
        return {
            **result.record(),
            "evaluation/success_rate": found.success,
            "evaluation/episodes": episodes,
            "evaluation/newest_success_rate": results[False].success_rate,
            "evaluation/averaged_success_rate": results[True].success_rate,
        }

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint."""
        return {
            "average": self._average.state_dict(),
            "best": self._best.state_dict(),
            "choice": None if self.choice is None else asdict(self.choice),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        self._average.load_state_dict(state["average"])
        self._best.load_state_dict(state["best"])
        self.choice = None if state["choice"] is None else Choice(**state["choice"])

    def _confirm(self, actor: Actor, task: GraspConfig, iteration: int) -> list[Evaluation]:
        """Evaluates in fresh episodes, all of them unless the target is out of reach before."""
        config, parts = self._config, []
        may_fail = (1 - config.target_success) * config.confirmation_episodes + 1e-9
        left, failed = config.confirmation_episodes, 0
        while left and failed <= may_fail:
            seed = self._seed + _FRESH + iteration + _PART * len(parts)
            parts.append(self._run(actor, task, min(left, _EPISODES_AT_ONCE), seed))
            successes, episodes = _count(parts)
            left, failed = config.confirmation_episodes - episodes, episodes - successes
        return parts

    def _consider(self, found: Choice, actor: Actor) -> None:
        best = self.choice
        is_comparable = best is not None and best.difficulty == found.difficulty
        if best is None or not is_comparable or found.success_low >= best.success_low:
            self.choice = found
            self._best.load_state_dict(actor.state_dict())

    def _run(self, actor: Actor, task: GraspConfig, episodes: int, seed: int) -> Evaluation:
        threads = self._config.update_threads
        return evaluate_actor(actor, task, episodes, seed, threads, device=self._device)


def _count(parts: list[Evaluation]) -> tuple[int, int]:
    """Successes and episodes of all parts."""
    successes = sum(round(part.success_rate * part.episodes) for part in parts)
    return successes, sum(part.episodes for part in parts)
