"""Checkpoints: what resumes a run exactly. They never leave the training machine; bundles do.

    checkpoints/
      iteration_000120/
        state.json             iteration, steps, episode statistics, schema hash, config
        actor.safetensors      the policy: all that evaluation and export need
        training.pt            all nets, optimizers, generators, memories (tensors and numbers only)
        simulators/            one file per worker, written by the worker itself
      latest -> iteration_000120
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.policy import Actor, build_actor
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.specs import TensorSpec, schema_hash
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import all_specs

LATEST = "latest"
_KEEP = 3


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
    """
    parent.mkdir(exist_ok=True)
    final = parent / f"iteration_{iteration:06d}"
    partial = parent / f".partial_{iteration:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "simulators").mkdir(parents=True)
    weights = {key: value.contiguous() for key, value in actor.state_dict().items()}
    save_file(weights, partial / "actor.safetensors")
    torch.save(training, partial / "training.pt")
    (partial / "state.json").write_text(json.dumps({**state, "iteration": iteration}, indent=1))
    save_simulators(partial / "simulators")
    _flush(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _point_latest(parent, final.name)
    _remove_old(parent)
    return final


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder meant by a run folder, a `checkpoints` folder or a checkpoint.

    Raises:
        ConfigError: There is none.
    """
    for candidate in (path, path / LATEST, path / "checkpoints" / LATEST):
        if (candidate / "state.json").is_file():
            return candidate.resolve()
    raise ConfigError(f"{path}: no checkpoint there; give a run folder or a checkpoint folder")


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The plain values of `state.json`."""
    return json.loads((checkpoint / "state.json").read_text())


def load_training(checkpoint: Path) -> dict[str, Any]:
    """The training state that `save_checkpoint` got."""
    return torch.load(checkpoint / "training.pt", weights_only=True)


def load_actor(path: Path) -> tuple[Actor, RunConfig, dict[str, TensorSpec]]:
    """The policy of a checkpoint, with the run's config and the specs of all groups.

    Raises:
        ConfigError: No checkpoint there, or it was made for other observations than this code's.
    """
    checkpoint = find_checkpoint(path)
    state = load_state(checkpoint)
    config = parse_config(RunConfig, state["config"], source=str(checkpoint))
    specs = all_specs(config.task)
    actor = build_actor(config.network, specs, len(config.task.action.dimensions))
    found = policy_schema(actor, config.task)
    if found != state["schema_hash"]:
        raise ConfigError(
            f"{checkpoint}: made for observations {state['schema_hash']}, this version has {found}; "
            "use the commit in run.json or train again"
        )
    actor.load_state_dict(load_file(checkpoint / "actor.safetensors"))
    actor.eval()
    return actor, config, specs


def policy_schema(actor: Actor, task: GraspConfig) -> str:
    """Hash of the observation groups that an actor reads, as the task defines them today."""
    specs = all_specs(task)
    return schema_hash([specs[group] for group in actor.groups])


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _point_latest(parent: Path, name: str) -> None:
    link = parent / f".{LATEST}"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(parent / LATEST)


def _remove_old(parent: Path) -> None:
    for old in sorted(parent.glob("iteration_*"))[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)
