"""Automatic domain randomization: the difficulty rises with success and falls with failure.

It follows the smoothed success rate of complete episodes, in both directions. The predecessor used
the fraction of environments that were at the goal at one instant, and could only advance.
"""

from typing import Any

import torch
from torch import Tensor

from dexgrasp_learner.run.config import AdrConfig
from dexgrasp_sim.schedules import current_ranges
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vec_env import SUCCESS, whole_episodes


class AdrController:
    """Decides on the difficulty between rollouts.

    Attributes:
        increment: Present increment, 0 to `increments`.
        episodes: Episodes since this increment was reached.
        success: Their smoothed success rate, 0 before any.
    """

    def __init__(self, config: AdrConfig, difficulty: float) -> None:
        """Args:
        config: When to change.
        difficulty: Initial difficulty, rounded to the nearest increment.
        """
        self._config = config
        self._fixed = difficulty
        self.increment = round(difficulty * config.increments)
        self.episodes = 0
        self.success = 0.0

    @property
    def difficulty(self) -> float:
        """0 (the schedules' initial intervals) to 1 (the final ones)."""
        if not self._config.enabled:
            return self._fixed
        return self.increment / self._config.increments

    def add(self, episode: Tensor, ended: Tensor) -> bool:
        """Adds the episodes that ended in a rollout; changes at most one increment.

        Args:
            episode: [..., E] rows of the `episode` result.
            ended: [...] bool, which rows hold an episode.

        Returns:
            Whether the difficulty has changed.
        """
        if not self._config.enabled:
            return False
        whole = whole_episodes(episode, ended)
        for success in whole[:, SUCCESS].to(torch.float64).tolist():
            self.episodes += 1
            window = min(self.episodes, self._config.smoothing_episodes)
            self.success += (success - self.success) / window
        return self._move()

    def _move(self) -> bool:
        config, change = self._config, 0
        if self.episodes < config.min_episodes:
            return False
        if self.success > config.advance_above and self.increment < config.increments:
            change = 1
        elif self.success < config.retreat_below and self.increment > 0:
            change = -1
        if change:
            self.increment += change
            self.episodes, self.success = 0, 0.0
        return change != 0

    def figures(self, task: GraspConfig) -> dict[str, float]:
        """For the metrics of an iteration: the level, and the ends of each interval it sets."""
        if not self._config.enabled:
            return {}
        figures = {"adr/level": self.difficulty, "adr/success": self.success}
        for name, (low, high) in current_ranges(task, self.difficulty).items():
            figures |= {f"adr/{name}_low": low, f"adr/{name}_high": high}
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "difficulty": self.difficulty,
            "increment": self.increment,
            "episodes": self.episodes,
            "success": self.success,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; the difficulty is kept even if `increments` has changed."""
        self.increment = round(state["difficulty"] * self._config.increments)
        self.episodes, self.success = state["episodes"], state["success"]
