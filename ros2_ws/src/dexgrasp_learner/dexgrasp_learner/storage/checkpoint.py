"""Checkpoints, from which a run resumes exactly on the training machine; bundles are deployed.

A checkpoint is a folder:

- `state.json`: iteration, steps, episode statistics, schema hash, config
- `actor.safetensors`: the policy that the run chose, all that evaluation and export need
- `training.pt`: all nets, optimizers, generators, memories (tensors and numbers only)
- `simulators/`: one file per worker, written by the worker itself
- `checksums.json`: sizes and hashes of all of these, see `checkpoint_files`

It is in the run's `checkpoints` folder as `iteration_000120`. `latest` points to the newest, for
people: the programs go by the numbers.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.policy import Actor, build_actor
from dexgrasp_learner.storage.checkpoint_files import (
    ACTOR,
    LATEST,
    STATE,
    TRAINING,
    checkpoint_name,
    find_checkpoint,
    list_checkpoints,
    reading,
    seal,
    writer_of,
)
from dexgrasp_sim.config import ConfigError, parse_config, replace, to_dict
from dexgrasp_sim.specs import TensorSpec, schema_hash
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import all_specs

_KEEP = 3
_PARTIAL = ".partial_"
_OPTIONAL = {"auxiliary_phase"}
"""Parts of an algorithm's state that a resumed run may begin or leave."""
_NEEDED = ("config", "iteration", "schema_hash")


def save_checkpoint(
    parent: Path,
    iteration: int,
    actor: Actor,
    training: dict[str, Any],
    state: dict[str, Any],
    save_simulators: Callable[[Path], None],
) -> Path:
    """Writes a checkpoint beside the others; a crash while writing leaves the last one intact.

    The folder is written under another name, flushed to the disk and renamed; `latest` is then
    replaced in one step, and all but the newest three are removed.

    Args:
        parent: The run's `checkpoints` folder.
        iteration: Iterations done.
        actor: The policy.
        training: Nested dicts of tensors and plain values.
        state: Plain values for `state.json`.
        save_simulators: Called with an existing folder to write the simulators' state into.

    Raises:
        OSError: It cannot be written, as on a full disk; then no partial checkpoint remains.
    """
    parent.mkdir(exist_ok=True)
    _remove_partial(parent)
    final = parent / checkpoint_name(iteration)
    partial = parent / f"{_PARTIAL}{iteration:06d}"
    try:
        (partial / "simulators").mkdir(parents=True)
        weights = {key: value.contiguous() for key, value in actor.state_dict().items()}
        # serialised in memory: the libraries' own writers do not raise OSError on a full disk
        (partial / ACTOR).write_bytes(save(weights))
        (partial / TRAINING).write_bytes(_serialized(training))
        state = {**state, "iteration": iteration}
        (partial / STATE).write_text(json.dumps(state, indent=1))
        save_simulators(partial / "simulators")
        seal(partial)
        _flush(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if final.exists():
        final.rename(parent / f"{_PARTIAL}replaced")
    partial.rename(final)
    _point_latest(parent, final.name)
    _remove_partial(parent)
    _remove_old(parent, final)
    return final


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The plain values of `state.json`.

    Raises:
        DamagedCheckpoint: It cannot be read, or lacks what every version writes.
    """
    with reading(checkpoint / STATE):
        state = json.loads((checkpoint / STATE).read_text())
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
        return state | {key: state[key] for key in _NEEDED}


def load_training(checkpoint: Path, algorithm_keys: Collection[str]) -> dict[str, Any]:
    """The training state that `save_checkpoint` wrote.

    Args:
        checkpoint: A checkpoint folder.
        algorithm_keys: Keys of the state of the algorithm that resumes from it.

    Raises:
        ConfigError: Another algorithm or another version made it.
        DamagedCheckpoint: The file cannot be read.
    """
    training = _read_training(checkpoint)
    found, needed = set(training["algorithm"]), set(algorithm_keys)
    if found - _OPTIONAL != needed - _OPTIONAL:
        raise ConfigError(
            f"{checkpoint}: has {sorted(found)}, needed are {sorted(needed)}; continue with the "
            f"command that began the run; {writer_of(checkpoint)}"
        )
    return training


def saved_config(checkpoint: Path, state: dict[str, Any]) -> RunConfig:
    """The config of a run when it wrote a checkpoint; keys that were not yet there have defaults.

    Raises:
        ConfigError: This version does not have, or does not allow, one of the settings.
    """
    try:
        return parse_config(RunConfig, state["config"], source=str(checkpoint / STATE))
    except ConfigError as error:
        raise ConfigError(f"{error} ({writer_of(checkpoint)})") from None


def load_actor(path: Path) -> tuple[Actor, RunConfig, dict[str, TensorSpec]]:
    """The policy of a checkpoint, with the run's config and the specs of all groups.

    The config's task is at the difficulty that the policy was last trained at.

    Raises:
        ConfigError: No checkpoint there, or it was made for other observations than this code's.
        DamagedCheckpoint: A file that is needed here is not whole; others do not matter.
    """
    checkpoint = find_checkpoint(path, (STATE, ACTOR))
    state = load_state(checkpoint)
    config = saved_config(checkpoint, state)
    with reading(checkpoint / STATE):
        reached = state.get("adr", {}).get("difficulty", config.task.difficulty)
        config = replace(config, task=replace(config.task, difficulty=reached))
    specs = all_specs(config.task)
    action_dim = len(config.task.action_names)
    actor = build_actor(config.network, specs, action_dim, config.table_view)
    found = policy_schema(actor, config.task)
    if found != state["schema_hash"]:
        raise ConfigError(
            f"{checkpoint}: made for observations {state['schema_hash']}, this version has "
            f"{found}; {writer_of(checkpoint)}"
        )
    with reading(checkpoint / ACTOR):
        actor.load_state_dict(load_file(checkpoint / ACTOR))
    actor.eval()
    return actor, config, specs


def load_critic_state(path: Path) -> tuple[dict[str, Any], RunConfig]:
    """State of `critic` and of `value_normalizer` in a checkpoint, with the run's config.

    Raises:
        ConfigError: There is no checkpoint, or none of a run that has a critic.
        DamagedCheckpoint: A file that is needed here is not whole.
    """
    checkpoint = find_checkpoint(path, (STATE, TRAINING))
    config = saved_config(checkpoint, load_state(checkpoint))
    nets = _read_training(checkpoint)["algorithm"]
    if "critic" not in nets:
        raise ConfigError(f"{checkpoint}: has no critic; name a run of `dexgrasp train`")
    return {name: nets[name] for name in ("critic", "value_normalizer")}, config


def check_resumable(checkpoint: Path, config: RunConfig) -> None:
    """Makes sure that a run of this config can take over the nets and memories of a checkpoint.

    Raises:
        ConfigError: A value on which these depend has changed.
    """
    saved = to_dict(saved_config(checkpoint, load_state(checkpoint)))
    own = to_dict(config)
    # the simulators' saved state depends on what is randomized, but not on the difficulty
    randomized = ("observation_noise", "latency", "randomization")
    started = {"resnet_weights": None}  # what a run began from matters no more
    changes = [
        *(
            change
            for group in randomized
            for change in _changes(saved["task"][group], own["task"][group], f"task.{group}")
        ),
        *_changes(saved["network"] | started, own["network"] | started, "network"),
        *_changes(saved["task"]["action"], own["task"]["action"], "task.action"),
        *_changes(saved["task"]["camera"], own["task"]["camera"], "task.camera"),
        *_changes(saved["simulators"], own["simulators"], "simulators", ("num_envs",)),
        # these are restored with the optimizers' state, so that a new value would have no effect
        *_changes(saved["ppo"], own["ppo"], "ppo", ("learning_rate", "critic_learning_rate")),
        *_changes(saved["distillation"], own["distillation"], "distillation", ("learning_rate",)),
    ]
    if changes:
        raise ConfigError(
            f"{checkpoint}: cannot be resumed with {'; '.join(changes)}; undo the change or start "
            "a new run"
        )


def policy_schema(actor: Actor, task: GraspConfig) -> str:
    """Hash of the observation groups that an actor reads, as the task defines them today."""
    return groups_schema(actor.groups, task)


def groups_schema(groups: Collection[str], task: GraspConfig) -> str:
    """Hash of observation groups, as the task defines them today."""
    specs = all_specs(task)
    return schema_hash([specs[group] for group in groups])


def _read_training(checkpoint: Path) -> dict[str, Any]:
    with reading(checkpoint / TRAINING):
        training = torch.load(checkpoint / TRAINING, map_location="cpu", weights_only=True)
        return training | {"algorithm": dict(training["algorithm"])}


def _changes(
    old: dict[str, Any], new: dict[str, Any], group: str, keys: Sequence[str] = ()
) -> list[str]:
    """What differs between two groups of plain values, in all keys or the given ones."""
    return [
        f"`{group}.{key}` = {new.get(key)!r}, which was {old.get(key)!r}"
        for key in keys or sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _serialized(values: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _point_latest(parent: Path, name: str) -> None:
    link, latest = parent / f".{LATEST}", parent / LATEST
    if latest.is_dir() and not latest.is_symlink():
        _dissolve_copy(latest)
    with suppress(OSError):  # file systems without links: nothing but people reads it
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.replace(latest)


def _dissolve_copy(latest: Path) -> None:
    """Makes room for the link where a copy of the run has made a folder of it."""
    with suppress(ConfigError):
        original = latest.with_name(checkpoint_name(load_state(latest)["iteration"]))
        if not original.exists():
            latest.rename(original)
            return
    shutil.rmtree(latest, ignore_errors=True)


def _remove_partial(parent: Path) -> None:
    for leftover in parent.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove_old(parent: Path, newest: Path) -> None:
    others = [path for path in list_checkpoints(parent) if path != newest]
    for old in others[_KEEP - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
