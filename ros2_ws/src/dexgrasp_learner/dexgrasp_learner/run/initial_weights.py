"""Where a run begins: with random nets, or with those of another run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dexgrasp_learner.algorithms.algorithm import Algorithm
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.run.teachers import check_same_actions
from dexgrasp_learner.storage.checkpoint import (
    groups_schema,
    load_actor,
    load_critic_state,
    policy_schema,
)
from dexgrasp_learner.storage.checkpoint_files import run_folder_of
from dexgrasp_sim.config import ConfigError, to_dict


def take_initial_weights(algorithm: Algorithm, config: RunConfig) -> None:
    """Loads what `training.initial_policy` and `training.initial_critic` name; None: nothing.

    Normalisation of observations comes with the nets; the exploration noise, the optimizers and
    the difficulty of the task begin anew.

    Raises:
        ConfigError: It does not fit: other actions, other observations or other layers.
        DamagedCheckpoint: It is not whole.
    """
    training = config.training
    if training.initial_policy is not None:
        _take_policy(algorithm.actor, Path(training.initial_policy), config)
    if training.initial_critic is not None:
        _take_critic(algorithm, Path(training.initial_critic), config)


def settings_with_names(config: RunConfig) -> dict[str, Any]:
    """All settings, with the names of what the nets began with instead of its paths."""
    settings = to_dict(config)
    training, network = settings["training"], settings["network"]
    for key in ("initial_policy", "initial_critic"):
        training[key] = training[key] and run_folder_of(Path(training[key])).name
    network["resnet_weights"] = network["resnet_weights"] and Path(network["resnet_weights"]).name
    return settings


def beginning(config: RunConfig) -> str:
    """A sentence for the card of a policy; "" where the run began with random weights."""
    training = settings_with_names(config)["training"]
    nets = {"policy": training["initial_policy"], "critic": training["initial_critic"]}
    named = [f"the {net} of {run}" for net, run in nets.items() if run]
    return f"The run began with {' and '.join(named)}." if named else ""


def _take_policy(actor: Actor, path: Path, config: RunConfig) -> None:
    what = f"training.initial_policy {path}"
    other, run, _ = load_actor(path)
    check_same_actions(what, run.task, config.task)
    if policy_schema(other, run.task) != policy_schema(actor, config.task):
        raise _unlike(what, "actor_groups", other.groups, actor.groups)
    noise = actor.distribution.state_dict(prefix="distribution.")
    _load(what, actor, {**other.state_dict(), **noise})


def _take_critic(algorithm: Algorithm, path: Path, config: RunConfig) -> None:
    what = f"training.initial_critic {path}"
    if not isinstance(algorithm, Ppo):
        raise ConfigError(f"{what}: a distillation has no critic; leave it out")
    state, run = load_critic_state(path)
    theirs, own = run.network.critic_groups, config.network.critic_groups
    if groups_schema(theirs, run.task) != groups_schema(own, config.task):
        raise _unlike(what, "critic_groups", theirs, own)
    if run.ppo.normalize_values != config.ppo.normalize_values:
        raise ConfigError(
            f"{what}: its ppo.normalize_values is {run.ppo.normalize_values}, so that its values "
            "mean something else; use the same"
        )
    _load(what, algorithm.critic, state["critic"])
    algorithm.value_normalizer.load_state_dict(state["value_normalizer"])


def _load(what: str, net: nn.Module, state: Mapping[str, Any]) -> None:
    """Checked first, so that a net is never loaded in part."""
    sizes = {name: value.shape for name, value in net.state_dict().items()}
    if {name: value.shape for name, value in state.items() if isinstance(value, Tensor)} != sizes:
        raise ConfigError(f"{what}: its layers have other sizes; use the same `network` settings")
    net.load_state_dict(state)


def _unlike(what: str, key: str, theirs: tuple[str, ...], own: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f"{what}: reads {', '.join(theirs)}, this run {', '.join(own)}, or another size of them; "
        f"use the same `network.{key}`, robot, action and camera"
    )
