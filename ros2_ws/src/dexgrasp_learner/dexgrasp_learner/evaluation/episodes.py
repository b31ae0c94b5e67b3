"""Evaluation: a policy acts without exploration noise for one new episode per environment."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from dexgrasp_learner.algorithms.teacher import Teacher
from dexgrasp_learner.evaluation.figures import Evaluation, summarize
from dexgrasp_learner.evaluation.phases import NEAREST, Approach
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.objects.sets import OBJECT_SETS, object_set
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.observations import image_groups
from dexgrasp_sim.tasks.grasp.scripted import make_script
from dexgrasp_sim.vec_env import SUCCESS, allocate

_BATCH = 128

Policy = Callable[[dict[str, Tensor], Tensor], Tensor]
"""Gives actions [N, A] for observations {group: [N, ...]} and start flags [N] bool."""
PolicyFactory = Callable[[GraspEnv], Policy]
"""Makes the policy of a batch of environments."""


def evaluate(
    name: str,
    make_policy: PolicyFactory,
    config: GraspConfig,
    groups: Sequence[str],
    episodes: int,
    seed: int,
    threads: int = 2,
    show_progress: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Runs every environment for exactly one episode, the objects in turn.

    Args:
        name: Goes into the result.
        make_policy: See `PolicyFactory`.
        config: The task; starts are not staggered.
        groups: Observation groups that the policy reads.
        episodes: How many; more than 128 run in several batches of nearly the same size.
        seed: Of the episodes' starts.
        threads: CPU threads.
        show_progress: Whether a progress bar is shown on stderr, if that is a terminal.
        device: Where the environments compute.
    """
    config = replace(config, stagger_starts=False)
    rows, diverged = [], 0
    batches = math.ceil(episodes / _BATCH)
    limits = [episodes * batch // batches for batch in range(batches + 1)]
    with tqdm(
        total=episodes, desc=name, unit="episode", disable=None if show_progress else True
    ) as bar:
        for offset, stop in pairwise(limits):
            count = stop - offset
            env = make_grasp_env(config, count, seed, threads, groups, offset, device)
            try:
                figures, broken = _run_batch(env, make_policy)
                rows.append(figures)
                diverged += broken
            finally:
                env.close()
            bar.update(count)
    names = [item.name for item in config.objects]
    fields = (*env.episode_fields, NEAREST)
    return summarize(name, torch.cat(rows), fields, names, config.difficulty, seed, diverged)


def evaluate_actor(
    actor: Actor,
    config: GraspConfig,
    episodes: int,
    seed: int,
    threads: int = 2,
    swap_images: bool = False,
    name: str = "trained",
    show_progress: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Evaluates the mean action of an actor; see `evaluate` and `actor_policy`."""
    factory = actor_policy(actor, swap_images)
    groups = actor.groups
    return evaluate(name, factory, config, groups, episodes, seed, threads, show_progress, device)


def actor_policy(actor: Teacher, swap_images: bool = False) -> PolicyFactory:
    """The mean action of an actor, or of what acts like one, as a policy.

    Args:
        actor: The network.
        swap_images: See `swapping_images`.
    """

    def make(env: GraspEnv) -> Policy:
        memory = actor.initial_memory(env.num_envs)

        def act(observations: dict[str, Tensor], start: Tensor) -> Tensor:
            nonlocal memory
            device = memory.device
            # [1, N, ...] by group
            batch = {key: observations[key].unsqueeze(0).to(device) for key in actor.groups}
            output = actor(batch, start.unsqueeze(0).to(device), memory)
            memory = output.memory
            return output.mean[0].to(start.device)

        return act

    return swapping_images(make) if swap_images else make


def swapping_images(make_policy: PolicyFactory) -> PolicyFactory:
    """The policy, each environment of which gets its neighbour's images.

    It is a control experiment: what is left of the success does not come from seeing.
    """

    def make(env: GraspEnv) -> Policy:
        policy, images = make_policy(env), image_groups()

        def act(observations: dict[str, Tensor], start: Tensor) -> Tensor:
            swapped = {
                key: value.roll(1, dims=0) if key in images else value
                for key, value in observations.items()
            }
            return policy(swapped, start)

        return act

    return make


def scripted_policy(env: GraspEnv) -> Policy:
    """The scripted policy; it reads the simulation instead of observations."""
    with env.device:
        script = make_script(env)

    def act(observations: dict[str, Tensor], start: Tensor) -> Tensor:
        del observations, start
        with env.device:  # scripts make their tensors on the default device
            return script.act()

    return act


@torch.inference_mode()
def _run_batch(env: GraspEnv, make_policy: PolicyFactory) -> tuple[Tensor, int]:
    """Rows [N, E] of each environment's first episode, and in how many of these physics failed.

    The columns are those of the environments, and `NEAREST`.
    """
    out = allocate(env)
    env.reset(out)
    policy = make_policy(env)
    device = env.device
    start = torch.ones(env.num_envs, dtype=torch.bool, device=device)
    running = torch.ones_like(start)
    broken = torch.zeros_like(start)
    rows = torch.zeros(env.num_envs, len(env.episode_fields), device=device)
    approach = Approach(env)
    for _ in range(env.config.episode_steps):
        env.step(policy(out, start), out)
        start = out["terminated"] | out["truncated"]
        broken |= running & env.diverged
        first_end = running & start
        rows[first_end] = out["episode"][first_end]
        running &= ~start
        approach.follow(running)  # where an episode has ended, the next has begun
    rows[broken, SUCCESS] = 0.0
    rows = torch.cat((rows, approach.nearest_m.unsqueeze(1)), dim=1)
    return rows.cpu(), int(broken.sum())


def choose_objects(config: GraspConfig, choice: str) -> GraspConfig:
    """The task with other objects.

    Args:
        config: The task.
        choice: The name of a set, or names of the config's objects with commas between.

    Raises:
        ConfigError: There is no such set or object.
    """
    if choice in OBJECT_SETS:
        return replace(config, objects=object_set(choice))
    known = {item.name: item for item in config.objects}
    names = [name.strip() for name in choice.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--objects {choice}: {name!r} is no set and no object of the config; the sets "
                f"are {', '.join(OBJECT_SETS)}, the objects {', '.join(known)}"
            )
    return replace(config, objects=tuple(known[name] for name in dict.fromkeys(names)))
