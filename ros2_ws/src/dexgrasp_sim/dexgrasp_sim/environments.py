"""Environments by kind: what a worker is told to build, and what is known of it beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any

from dexgrasp_sim.vec_env import EnvSpecs, VecEnv


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
) -> VecEnv:
    """Builds a batch of environments.

    Args:
        kind: "grasp" or "synthetic".
        config: Plain values of the environment's config dataclass.
        num_envs: Environments in this batch.
        seed: Seed of the run. Every environment draws from its own generator, made of this seed
            and its global index, so how a run is split over workers changes nothing.
        threads: CPU threads for physics and images.
        groups: Names of the observation groups to write.
        env_offset: Global index of the first environment of this batch.

    Raises:
        ConfigError: A value of `config` or a group is not allowed.
    """
    if kind == "synthetic":
        from dexgrasp_sim.synthetic_env import SyntheticEnv

        return SyntheticEnv(config, num_envs, seed, threads, groups, env_offset)
    if kind == "grasp":
        from dexgrasp_sim.tasks.grasp.env import GraspEnv

        return GraspEnv.from_dict(config, num_envs, seed, threads, groups, env_offset)
    raise _unknown_kind(kind)


def _unknown_kind(kind: str) -> ValueError:
    return ValueError(f"environment kind {kind!r} is not one of 'grasp', 'synthetic'")
