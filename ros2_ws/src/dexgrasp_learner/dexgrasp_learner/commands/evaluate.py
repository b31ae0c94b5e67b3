"""`dexgrasp evaluate`: how often a policy succeeds on fresh episodes, acting without noise."""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dexgrasp_learner.evaluation.figures import Evaluation, as_text, summarize
from dexgrasp_learner.networks.policy import Actor, build_actor
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.objects.sets import OBJECT_SETS, object_set
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.scripted import make_script
from dexgrasp_sim.vec_env import EPISODE_FIELDS, allocate

_BATCH = 128
_IMAGE_GROUPS = ("depth", "stereo_rgb")

PolicyFactory = Callable[[GraspEnv], Callable[[dict[str, Tensor], Tensor], Tensor]]
"""Makes, for a batch of environments, a function of observations {group: [N, ...]} and start flags
[N] that gives actions [N, A]."""


def evaluate(
    name: str,
    make_policy: PolicyFactory,
    config: GraspConfig,
    groups: Sequence[str],
    episodes: int,
    seed: int,
    threads: int = 2,
    show_progress: bool = False,
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
        show_progress: Whether a bar goes to stderr.
    """
    config = replace(config, stagger_starts=False)
    rows, diverged = [], 0
    batches = math.ceil(episodes / _BATCH)
    limits = [episodes * batch // batches for batch in range(batches + 1)]
    with tqdm(total=episodes, desc=name, unit="episode", disable=not show_progress) as bar:
        for offset, stop in pairwise(limits):
            count = stop - offset
            env = make_grasp_env(config, count, seed, threads, groups, env_offset=offset)
            try:
                figures, broken = _run_batch(env, make_policy)
                rows.append(figures)
                diverged += broken
            finally:
                env.close()
            bar.update(count)
    names = [item.name for item in config.objects]
    return summarize(name, torch.cat(rows), names, config.difficulty, seed, diverged)


def evaluate_actor(
    actor: Actor,
    config: GraspConfig,
    episodes: int,
    seed: int,
    threads: int = 2,
    swap_images: bool = False,
    name: str = "trained",
    show_progress: bool = False,
) -> Evaluation:
    """Evaluates the mean action of an actor; see `evaluate` and `actor_policy`."""
    factory = actor_policy(actor, swap_images)
    return evaluate(name, factory, config, actor.groups, episodes, seed, threads, show_progress)


def actor_policy(actor: Actor, swap_images: bool = False) -> PolicyFactory:
    """The mean action of an actor as a policy.

    Args:
        actor: The network.
        swap_images: Each environment sees its neighbour's images: the control that shows whether
            the policy uses them.
    """

    def make(env: GraspEnv) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
        memory = actor.initial_memory(env.num_envs)

        def act(observations: dict[str, Tensor], start: Tensor) -> Tensor:
            nonlocal memory
            if swap_images:
                observations = {
                    key: value.roll(1, dims=0) if key in _IMAGE_GROUPS else value
                    for key, value in observations.items()
                }
            device = memory.device
            batch = {key: observations[key].unsqueeze(0).to(device) for key in actor.groups}
            output = actor(batch, start.unsqueeze(0).to(device), memory)
            memory = output.memory
            return output.mean[0].to(start.device)

        return act

    return make


def scripted_policy(env: GraspEnv) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The scripted policy; it reads the simulation instead of observations."""
    script = make_script(env)
    return lambda observations, start: script.act()


@torch.inference_mode()
def _run_batch(env: GraspEnv, make_policy: PolicyFactory) -> tuple[Tensor, int]:
    """The `episode` row [N, E] of each environment's first episode; in how many physics failed."""
    out = allocate(env)
    env.reset(out)
    policy = make_policy(env)
    start = torch.ones(env.num_envs, dtype=torch.bool)
    running = torch.ones(env.num_envs, dtype=torch.bool)
    broken = torch.zeros(env.num_envs, dtype=torch.bool)
    rows = torch.zeros(env.num_envs, len(EPISODE_FIELDS))
    for _ in range(env.config.episode_steps):
        env.step(policy(out, start), out)
        start = out["terminated"] | out["truncated"]
        broken |= running & env.diverged
        first_end = running & start
        rows[first_end] = out["episode"][first_end]
        running &= ~start
    rows[broken, EPISODE_FIELDS.index("success")] = 0.0
    return rows, int(broken.sum())


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `dexgrasp --help`."""
    parser.add_argument("policy", help="`scripted`, `untrained`, or a run or checkpoint folder")
    parser.add_argument("--config", type=Path, help="task; a checkpoint brings its own")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument(
        "--objects",
        metavar="SET",
        help=f"{', '.join(OBJECT_SETS)}, or names of the config's objects with commas between",
    )
    parser.add_argument(
        "--difficulty", type=float, help="of the task's schedules, 0 to 1; else the config's"
    )
    parser.add_argument("--seed", type=int, default=2_000_003)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--swap-images", action="store_true", help="each environment sees another's images"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides"
    )
    parser.add_argument("--json", action="store_true", help="last line is one JSON object")


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints the figures."""
    for name, least in (("episodes", 1), ("threads", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} {getattr(args, name)}: must be at least {least}")
    if args.swap_images and args.episodes < 2:
        raise ConfigError("--swap-images needs at least --episodes 2, to swap between")
    if args.difficulty is not None and not 0.0 <= args.difficulty <= 1.0:
        raise ConfigError(f"--difficulty {args.difficulty:g}: must be from 0 to 1")
    if args.overrides and not args.config:
        raise ConfigError(f"--set {args.overrides[0]}: changes a value of --config; give one")
    result = _evaluate_named(args)
    if args.json:
        print(json.dumps(asdict(result)))
        return 0
    print(as_text(result))
    return 0


def _evaluate_named(args: argparse.Namespace) -> Evaluation:
    from dexgrasp_learner.config import RunConfig, load_run_config
    from dexgrasp_sim.config import to_dict
    from dexgrasp_sim.tasks.grasp.observations import grasp_specs

    torch.set_num_threads(1)
    if args.policy not in ("scripted", "untrained"):
        return _evaluate_checkpoint(args)
    config = load_run_config(args.config, args.overrides) if args.config else RunConfig()
    task = _chosen_task(config.task, args)
    common = {"episodes": args.episodes, "seed": args.seed, "threads": args.threads}
    if args.policy == "scripted":
        return evaluate(
            "scripted", scripted_policy, task, (), show_progress=not args.json, **common
        )
    specs = grasp_specs(to_dict(task), config.groups)
    by_name = {spec.name: spec for spec in specs.observation_specs}
    actor = build_actor(config.network, by_name, specs.action_dim, seed=config.seed)
    return evaluate_actor(actor, task, name="untrained", **common)


def _evaluate_checkpoint(args: argparse.Namespace) -> Evaluation:
    from dexgrasp_learner.config import load_run_config
    from dexgrasp_learner.storage.checkpoint import load_actor, policy_schema

    actor, config, _ = load_actor(Path(args.policy))
    if args.config:
        schema = policy_schema(actor, config.task)
        config = load_run_config(args.config, args.overrides)
        if policy_schema(actor, config.task) != schema:
            raise ConfigError(
                f"--config {args.config}: {args.policy} was trained for other observations; "
                "give the camera and the action of the run's config.yaml"
            )
    return evaluate_actor(
        actor,
        _chosen_task(config.task, args),
        episodes=args.episodes,
        seed=args.seed,
        threads=args.threads,
        swap_images=args.swap_images,
        name="swapped images" if args.swap_images else "trained",
        show_progress=not args.json,
    )


def _chosen_task(config: GraspConfig, args: argparse.Namespace) -> GraspConfig:
    if args.objects is not None:
        config = choose_objects(config, args.objects)
    return config if args.difficulty is None else replace(config, difficulty=args.difficulty)
