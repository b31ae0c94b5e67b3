"""`dexgrasp export`: makes a policy bundle from a checkpoint."""

import argparse
import json
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.storage.bundle import (
    ACTION,
    AUXILIARY,
    MEMORY_IN,
    MEMORY_OUT,
    POLICY_FILE,
    VECTORS_FILE,
    BundleManifest,
    RobotIdentity,
    load_bundle,
    seal_manifest,
)
from dexgrasp_learner.storage.checkpoint import load_actor
from dexgrasp_learner.storage.checkpoint_files import ACTOR, STATE, find_checkpoint
from dexgrasp_learner.storage.history import warn_of_changed_files
from dexgrasp_sim.arguments import add_json
from dexgrasp_sim.config import ConfigError, replace, to_dict
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.environments import make_env
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import RESULT_SPECS

_TEST_STEPS = 24
_ONNX_OPSET = 18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp export`."""
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bundle to")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Exports, loads the result back and checks it against the learner."""
    actor, config, specs = load_actor(args.checkpoint)
    warn_of_changed_files(args.checkpoint, config)
    recorded = record_episode(actor, config.task, config.seed, _TEST_STEPS)
    commit = _training_commit(args.checkpoint)
    manifest = write_bundle(args.out, actor, specs, config, recorded, commit)
    if args.json:
        print(json.dumps({"bundle": str(args.out), "bundle_id": manifest.bundle_id}))
    else:
        print(f"bundle {manifest.bundle_id} in {args.out}: acts as the checkpoint does")
    return 0


def write_bundle(
    folder: Path,
    actor: Actor,
    specs: Mapping[str, TensorSpec],
    config: RunConfig,
    recorded: Mapping[str, Tensor],
    training_commit: str = "",
) -> BundleManifest:
    """Writes a bundle and loads it back; after an error all is as it was.

    Args:
        folder: Bundle folder; must not exist or must hold a bundle, which is replaced.
        actor: The policy.
        specs: Specs of the environment's observation groups by name.
        config: The training run.
        recorded: Consecutive observations of one environment from the start of an episode:
            group to [T, *shape], T >= 16.
        training_commit: Commit of the source tree that trained the policy.

    Raises:
        ConfigError: `folder` holds something else, or cannot be written, as on a full disk.
        BundleError: The result does not act as the policy.
    """
    folder = folder.resolve()
    partial = folder.with_name(f".partial_{folder.name}")
    try:
        if folder.exists() and not (folder / POLICY_FILE).is_file():
            raise ConfigError(f"--out {folder}: exists and is no bundle; give another folder")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        groups = tuple(specs[name] for name in actor.groups)
        _write_graph(partial / POLICY_FILE, actor, groups)
        _write_vectors(partial / VECTORS_FILE, actor, recorded)
        seal_manifest(partial, _manifest_values(actor, specs, config, training_commit))
        manifest = load_bundle(partial).manifest
        _replace_folder(folder, partial)
    except OSError as error:
        raise ConfigError(
            f"--out {folder}: cannot be written ({error.strerror or error}); free some space or "
            "give another folder"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _manifest_values(
    actor: Actor, specs: Mapping[str, TensorSpec], config: RunConfig, training_commit: str
) -> dict[str, Any]:
    """What `seal_manifest` takes."""
    return {
        "groups": tuple(specs[name] for name in actor.groups),
        "action_names": config.task.action_names,
        "memory_shape": tuple(actor.initial_memory(1).shape),
        "auxiliary": specs[actor.auxiliary_group] if actor.auxiliary_group else None,
        "robot": _robot_identity(config.task),
        "task": config.task,
        "training": {key: value for key, value in to_dict(config).items() if key != "task"},
        "training_commit": training_commit,
    }


def _replace_folder(folder: Path, new: Path) -> None:
    """Puts `new` in the place of `folder`, which is still there if that fails."""
    old = folder.with_name(f".replaced_{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@torch.no_grad()
def record_episode(actor: Actor, task: GraspConfig, seed: int, steps: int) -> dict[str, Tensor]:
    """Lets the policy act in one environment from the start of an episode.

    Returns:
        Group to [steps, *shape] for the groups that the policy reads.
    """
    values = to_dict(replace(task, stagger_starts=False))
    env = make_env("grasp", values, num_envs=1, seed=seed, threads=1, groups=actor.groups)
    out = {spec.name: spec.empty(1) for spec in (*env.observation_specs, *RESULT_SPECS)}
    recorded: dict[str, list[Tensor]] = {name: [] for name in actor.groups}
    memory = actor.initial_memory(1)
    try:
        env.reset(out)
        for _ in range(steps):
            for name, values_so_far in recorded.items():
                values_so_far.append(out[name][0].clone())
            observations = {name: out[name].unsqueeze(0) for name in actor.groups}  # [1, 1, ...]
            output = actor(observations, torch.zeros(1, 1, dtype=torch.bool), memory)
            memory = output.memory
            env.step(output.mean[0], out)
    finally:
        env.close()
    return {name: torch.stack(values_so_far) for name, values_so_far in recorded.items()}


class _SingleStep(nn.Module):
    """One control step of one robot; inputs are the groups [1, ...] in order, then the memory."""

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        actor = self.actor
        pairs = zip(actor.groups, inputs, strict=False)
        observations = {name: value.unsqueeze(0) for name, value in pairs}  # [1, 1, ...]
        has_memory = len(inputs) > len(actor.groups)
        memory = inputs[-1] if has_memory else actor.initial_memory(1)
        output = actor(observations, torch.zeros(1, 1, dtype=torch.bool), memory)
        results = [output.mean[0].clamp(-1.0, 1.0)]
        if output.auxiliary is not None:
            results.append(output.auxiliary[0])
        return (*results, output.memory) if has_memory else tuple(results)


def _write_graph(path: Path, actor: Actor, groups: Sequence[TensorSpec]) -> None:
    inputs = [spec.empty(1) for spec in groups]
    input_names = [spec.name for spec in groups]
    output_names = [ACTION, *([AUXILIARY] if actor.auxiliary_group else [])]
    if actor.memory_size:
        inputs.append(actor.initial_memory(1))
        input_names.append(MEMORY_IN)
        output_names.append(MEMORY_OUT)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it lists packages not installed
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own internals
        program = torch.onnx.export(
            _SingleStep(actor).eval(),
            tuple(inputs),
            input_names=input_names,
            output_names=output_names,
            opset_version=_ONNX_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    onnx.save(_without_provenance(program.model_proto), path)


def _without_provenance(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the exporter's notes: they hold paths of the training machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
        item.doc_string = ""
    for item in graph.initializer:
        del item.metadata_props[:]
    return model


@torch.no_grad()
def _write_vectors(path: Path, actor: Actor, recorded: Mapping[str, Tensor]) -> None:
    observations = {name: recorded[name] for name in actor.groups}
    steps = len(next(iter(observations.values())))
    memory = actor.initial_memory(1)
    arrays = {name: values.numpy() for name, values in observations.items()}
    arrays[MEMORY_IN] = memory.numpy()
    actions, predictions = [], []
    for step in range(steps):
        # [1, 1, ...] by group
        now = {name: values[step : step + 1].unsqueeze(0) for name, values in observations.items()}
        output = actor(now, torch.zeros(1, 1, dtype=torch.bool), memory)
        memory = output.memory
        actions.append(output.mean[0, 0].clamp(-1.0, 1.0).numpy())
        if output.auxiliary is not None:
            predictions.append(output.auxiliary[0, 0].numpy())
    arrays[ACTION] = np.stack(actions)
    if predictions:
        arrays[AUXILIARY] = np.stack(predictions)
    np.savez(path, allow_pickle=False, **arrays)


def _robot_identity(task: GraspConfig) -> RobotIdentity:
    robot = task.load_robot()
    decoder = make_decoder(task.action, robot, 1, task.control_dt_s, task.table_obstacle)
    return RobotIdentity(
        robot.name,
        sha256(robot.urdf_path.read_bytes()).hexdigest(),
        robot.joint_names,
        tuple(decoder.start_position.tolist()),
    )


def _training_commit(checkpoint: Path) -> str:
    """The commit that the run folder of a checkpoint names, "" without one."""
    record = find_checkpoint(checkpoint, (STATE, ACTOR)).parent.parent / "run.json"
    try:
        return str(json.loads(record.read_text())["commit"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
