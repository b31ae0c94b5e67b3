"""Builds the parts of a run from its config: networks, algorithm and environments."""

from pathlib import Path

import torch
from torch import nn

from dexgrasp_learner.algorithms.config import DistillationConfig, PpoConfig
from dexgrasp_learner.algorithms.distillation import Distillation
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.algorithms.teacher import Teacher
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.policy import Actor, build_actor, build_critic
from dexgrasp_learner.networks.resnet import ResNet18
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_sim.config import ConfigError, to_dict
from dexgrasp_sim.tasks.grasp.observations import all_specs

_RANK_SEEDS = 1_000_003
"""Distance between the seeds of two ranks, from which they draw noise and minibatches; large, so
that no other run is likely to use these seeds."""


def build_ppo(config: RunConfig, peers: Peers | None = None) -> Ppo:
    """Fresh networks and PPO for a run; ConfigError where the config contradicts itself."""
    peers = peers or Peers()
    single_steps = config.network.memory == config.network.critic_memory == "none"
    _check_minibatches("ppo", config.ppo, config, single_steps)
    _check_samples(config, peers.size)
    actor = fresh_actor(config)
    specs, view = all_specs(config.task), config.table_view
    critic = build_critic(config.network, specs, view, seed=config.seed + 1)
    device = learner_device(config.training.device)
    seed = config.seed + _RANK_SEEDS * peers.rank
    return Ppo(actor.to(device), critic.to(device), config.ppo, seed, peers)


def build_distillation(
    config: RunConfig, teacher: Teacher, peers: Peers | None = None
) -> Distillation:
    """A fresh student and distillation for a run; ConfigError as for `build_ppo`.

    A teacher that is a module moves to the learner's device.
    """
    peers = peers or Peers()
    single_steps = config.network.memory == "none"
    _check_minibatches("distillation", config.distillation, config, single_steps)
    student = fresh_actor(config)
    device = learner_device(config.training.device)
    if isinstance(teacher, nn.Module):
        teacher.to(device)
    seed = config.seed + _RANK_SEEDS * peers.rank
    return Distillation(student.to(device), teacher, config.distillation, seed, peers)


def fresh_actor(config: RunConfig) -> Actor:
    """The actor of a run before it has learned anything.

    Raises:
        ConfigError: As for `build_actor`; or `network.resnet_weights` is no file of such weights.
    """
    specs, action_dim = all_specs(config.task), len(config.task.action_names)
    actor = build_actor(config.network, specs, action_dim, config.table_view, config.seed)
    path = config.network.resnet_weights
    for part in actor.modules():
        if path is not None and isinstance(part, ResNet18):
            part.load(Path(path))
    return actor


def learner_device(name: str) -> torch.device:
    """The device that `training.device` names.

    Raises:
        ConfigError: It names a GPU and torch finds none.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError(
            "training.device = 'cuda': torch finds no GPU; say cpu or auto, or install a torch "
            "with CUDA and its driver"
        )
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def pool_spec(
    config: RunConfig,
    folder: Path | None,
    groups: tuple[str, ...],
    run_id: str = "",
    rank: int = 0,
) -> PoolSpec:
    """The simulators that a run config asks for, writing the given observation groups.

    Their logs go to the run folder; without one they are removed when the run ends. The
    environments of each rank are different.
    """
    return PoolSpec(
        kind="grasp",
        config=to_dict(config.task),
        groups=groups,
        horizon=config.training.horizon,
        simulators=config.simulators,
        seed=config.seed,
        env_offset=rank * config.simulators.num_envs,
        learner_device=str(learner_device(config.training.device)),
        log_dir=folder / "logs" if folder else None,
        secret_path=folder / "secret" if folder else None,
        run_id=run_id,
    )


def _check_samples(config: RunConfig, learners: int) -> None:
    """Advantages are divided by their standard deviation, which one alone does not have."""
    envs, horizon = config.simulators.num_envs, config.training.horizon
    if envs * horizon * learners < 2:
        raise ConfigError(
            f"simulators.num_envs {envs} and training.horizon {horizon}: a rollout of a single "
            "step, whose advantage cannot be normalised; raise one of them"
        )


def _check_minibatches(
    name: str, settings: PpoConfig | DistillationConfig, config: RunConfig, single_steps: bool
) -> None:
    pieces = settings.minibatches * (settings.micro_batches or 1)
    most, what = config.simulators.num_envs, "simulators.num_envs"
    if single_steps:
        most, what = most * config.training.horizon, f"{what} * training.horizon"
    if pieces > most:
        raise ConfigError(
            f"{name}.minibatches * micro_batches = {pieces} is more than {what} = {most}; lower "
            "them"
        )
