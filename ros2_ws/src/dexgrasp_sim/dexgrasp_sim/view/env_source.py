"""Environments that this process steps with a policy."""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.vec_env import SUCCESS, allocate
from dexgrasp_sim.view.source import IMAGE_GROUPS, Moment, Source

Policy = Callable[[dict[str, Tensor], Tensor], Tensor]
"""Maps observations {group: [N, ...]} and flags [N] bool of new episodes to actions [N, A]."""


class EnvSource(Source):
    """Environments of this process. All of them are stepped, one is shown."""

    is_driven = True

    def __init__(
        self,
        name: str,
        config: GraspConfig,
        make_policy: Callable[[GraspEnv], Policy],
        groups: tuple[str, ...],
        num_envs: int,
        seed: int = 0,
        env: int = 0,
    ) -> None:
        """Builds the environments and starts an episode in each.

        Args:
            name: See `Source`.
            config: The task; starts are not staggered.
            make_policy: Makes the policy of these environments.
            groups: Observation groups that the policy reads.
            num_envs: How many; they get the objects in turn.
            seed: Of the episodes.
            env: Which one to show.
        """
        config = replace(config, stagger_starts=False)
        self.name, self.num_envs, self.groups = name, num_envs, IMAGE_GROUPS
        self.env = env
        self.period_s = config.control_dt_s
        self._env = make_grasp_env(config, num_envs, seed, 1, tuple({*groups, *IMAGE_GROUPS}))
        self._out = allocate(self._env)
        self._env.reset(self._out)
        self._policy = make_policy(self._env)
        self._begins = torch.ones(num_envs, dtype=torch.bool)
        self._steps = self._episodes = self._successes = 0

    @override
    def select(self, env: int) -> None:
        self.env = env

    @torch.inference_mode()
    @override
    def advance(self) -> None:
        out = self._out
        self._env.step(self._policy(out, self._begins), out)
        self._begins = out["terminated"] | out["truncated"]
        self._steps += 1
        self._episodes += int(self._begins.sum())
        self._successes += int(out["episode"][self._begins, SUCCESS].sum())
        broken = torch.nonzero(self._env.diverged).squeeze(1)
        if len(broken):
            self._env.reset_envs(broken, out)
            self._begins[broken] = True

    @torch.inference_mode()
    @override
    def restart(self) -> None:
        self._env.reset_envs(torch.tensor([self.env]), self._out)
        self._begins[self.env] = True

    @override
    def moment(self) -> Moment:
        env, shown = self._env, self.env
        values = env.telemetry(shown)
        item = env.config.objects[int(env.object_index[shown])]
        episode_s = float(env.step_count[shown]) * self.period_s
        return Moment(
            env=shown,
            time_s=self._steps * self.period_s,
            joint_position=values["joint_position"],
            object_pose=values["object_pose"],
            goal=values["goal"],
            reward=float(self._out["reward"][shown]),
            images={group: self._out[group][shown].clone() for group in self.groups},
            facts={
                "object": item.name,
                "time in the episode": f"{episode_s:.1f} of {env.config.episode_s:g} s",
                "episodes, all environments": str(self._episodes),
                "of these successful": str(self._successes),
            },
        )

    @property
    @override
    def has_ended(self) -> bool:
        return False

    @override
    def close(self) -> None:
        self._env.close()
