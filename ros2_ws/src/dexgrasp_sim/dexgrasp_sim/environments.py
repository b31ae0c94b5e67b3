"""Makes environments by kind, and their specs without building them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from dexgrasp_sim.config import parse_config
from dexgrasp_sim.physics.backends import make_engine
from dexgrasp_sim.vec_env import EnvSpecs, VecEnv

if TYPE_CHECKING:
    from dexgrasp_sim.tasks.grasp.config import GraspConfig
    from dexgrasp_sim.tasks.grasp.env import GraspEnv


def env_specs(kind: str, config: Mapping[str, Any], groups: Sequence[str]) -> EnvSpecs:
    """The specs of an environment without building its physics; arguments as for `make_env`."""
    if kind == "synthetic":
        from dexgrasp_sim.synthetic_env import synthetic_specs

        return synthetic_specs(config, groups)
    if kind == "grasp":
        from dexgrasp_sim.tasks.grasp.observations import grasp_specs

        return grasp_specs(config, groups)
    raise _unknown_kind(kind)


def make_env(
    kind: str,
    config: Mapping[str, Any],
    num_envs: int,
    seed: int,
    threads: int,
    groups: Sequence[str],
    env_offset: int = 0,
    device: str = "cpu",
) -> VecEnv:
    """Builds a batch of environments.

    Args:
        kind: "grasp" or "synthetic".
        config: Plain values of the environment's config dataclass.
        num_envs: Environments in this batch.
        seed: Seed of the run. Every environment has its own random streams, which depend on this
            seed and its global index, not on how the run is split over workers.
        threads: CPU threads for physics and images.
        groups: Names of the observation groups to write.
        env_offset: Global index of the first environment of this batch.
        device: Device of the computation and of the tensors: `cpu`, `cuda` or `cuda:K`.

    Raises:
        ConfigError: A value of `config`, a group or the device is not allowed.
    """
    if kind == "synthetic":
        from dexgrasp_sim.synthetic_env import SyntheticEnv

        return SyntheticEnv(config, num_envs, seed, threads, groups, env_offset, device)
    if kind == "grasp":
        from dexgrasp_sim.tasks.grasp.config import GraspConfig

        grasp = parse_config(GraspConfig, dict(config), source="task")
        return make_grasp_env(grasp, num_envs, seed, threads, groups, env_offset, device)
    raise _unknown_kind(kind)


def make_grasp_env(
    config: "GraspConfig",
    num_envs: int,
    seed: int = 0,
    threads: int = 1,
    groups: Sequence[str] = (),
    env_offset: int = 0,
    device: torch.device | str = "cpu",
) -> "GraspEnv":
    """Builds a batch of the grasp task on the engine that `config.physics` names.

    Arguments and errors as for `make_env`; also ConfigError if the engine cannot be made.
    """
    from dexgrasp_sim.tasks.grasp.env import GraspEnv

    engine = make_engine(config.scene(num_envs, env_offset), device, threads)
    return GraspEnv(config, engine, seed, groups, env_offset)


def _unknown_kind(kind: str) -> ValueError:
    return ValueError(f"environment kind {kind!r} is not one of 'grasp', 'synthetic'")
