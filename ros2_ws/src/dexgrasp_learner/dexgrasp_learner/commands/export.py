"""`dexgrasp export`: makes a policy bundle from a checkpoint."""

import argparse
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from dexgrasp_learner.commands.policies import of_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.evaluation.episodes import choose_objects
from dexgrasp_learner.evaluation.figures import Assessment
from dexgrasp_learner.evaluation.model_card import model_card
from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.run.initial_weights import beginning, settings_with_names
from dexgrasp_learner.storage.bundle import (
    ACTION,
    AUXILIARY,
    CARD_FILE,
    CURVE_FILE,
    MEMORY_IN,
    MEMORY_OUT,
    MESHES,
    POLICY_FILE,
    VECTORS_FILE,
    Bundle,
    BundleManifest,
    ObjectSources,
    RobotIdentity,
    load_bundle,
    read_manifest,
    seal_manifest,
)
from dexgrasp_learner.storage.checkpoint import load_actor
from dexgrasp_learner.storage.history import warn_of_changed_files
from dexgrasp_learner.storage.leapp import LEAPP_FILE, leapp_description
from dexgrasp_learner.storage.origin import Origin, Records, read_origin
from dexgrasp_sim.arguments import add_json, add_seed, whole
from dexgrasp_sim.config import ConfigError, replace, to_dict
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.environments import make_env
from dexgrasp_sim.objects.sets import set_name
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import RESULT_SPECS

_TEST_STEPS = 24
_ONNX_OPSET = 18


Assess = Callable[[Bundle], list[Assessment]]
"""Measures a finished bundle, for its card and manifest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp export`."""
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bundle to")
    parser.add_argument(
        "--evaluate",
        type=whole(0),
        default=0,
        metavar="EPISODES",
        help="episodes to measure the bundle on, for its model card; 0: none (default); policies "
        "that see also get the images of others, those of the set `train` also held-out objects",
    )
    parser.add_argument(
        "--note", default="", help="a sentence for the card, such as the teacher of a student"
    )
    add_seed(parser, 2_000_003, "these episodes")
    parser.add_argument(
        "--threads", type=whole(1, 1024), default=2, help="CPU threads of the simulation"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Exports, loads the result back and checks it against the learner."""
    actor, config, specs = load_actor(args.checkpoint)
    warn_of_changed_files(args.checkpoint, config)
    recorded = record_episode(actor, config.task, config.seed, _TEST_STEPS)
    origin, records = read_origin(args.checkpoint)
    origin = replace(origin, note=" ".join(filter(None, (beginning(config), args.note))))
    manifest = write_bundle(
        args.out, actor, specs, config, recorded, origin, records, partial(_assess, args)
    )
    if args.json:
        figures = list(manifest.evaluations)
        print(
            json.dumps(
                {"bundle": str(args.out), "bundle_id": manifest.bundle_id, "evaluations": figures}
            )
        )
        return 0
    print(f"bundle {manifest.bundle_id} in {args.out}: acts as the checkpoint does")
    for figures in manifest.evaluations:
        rate, episodes = figures["success_rate"], figures["episodes"]
        objects = figures["object_set"] or "its own"
        print(f"  {rate:.3f} of {episodes} episodes succeed with {objects} objects")
    return 0


def _assess(args: argparse.Namespace, bundle: Bundle) -> list[Assessment]:
    """Evaluates a bundle, which goes by the name of its config: its folder may be renamed."""
    if not args.evaluate:
        return []
    candidate = of_bundle(bundle, str(bundle.manifest.training["name"]))
    sets = ["", "held_out"] if bundle.manifest.objects.package_set == "train" else [""]
    assessments = []
    for name in sets:
        task = choose_objects(candidate.config.task, name) if name else candidate.config.task
        measure = partial(
            candidate.evaluate,
            task,
            args.evaluate,
            args.seed,
            threads=args.threads,
            show_progress=True,
        )
        swapped = measure(swap_images=True) if candidate.sees and args.evaluate > 1 else None
        assessments.append(Assessment(candidate.name, name, measure(), swapped))
    return assessments


def write_bundle(
    folder: Path,
    actor: Actor,
    specs: Mapping[str, TensorSpec],
    config: RunConfig,
    recorded: Mapping[str, Tensor],
    origin: Origin | None = None,
    records: Records = (),
    assess: Assess = lambda bundle: [],
) -> BundleManifest:
    """Writes a bundle and loads it back; after an error all is as it was.

    Args:
        folder: Bundle folder; must not exist or must hold a bundle, which is replaced.
        actor: The policy.
        specs: Specs of the environment's observation groups by name.
        config: The training run.
        recorded: Consecutive observations of one environment from the start of an episode:
            group to [T, *shape], T >= 16.
        origin: How the policy was trained.
        records: Of the run, for its curve.
        assess: Measures the bundle for its card.

    Raises:
        ConfigError: `folder` holds something else, or cannot be written, as on a full disk.
        BundleError: The result does not act as the policy.
    """
    folder = folder.resolve()
    new = folder.with_name(f".partial_{folder.name}")
    try:
        if folder.exists() and not (folder / POLICY_FILE).is_file():
            raise ConfigError(f"--out {folder}: exists and is no bundle; give another folder")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        _write_graph(new / POLICY_FILE, actor, tuple(specs[name] for name in actor.groups))
        _write_vectors(new / VECTORS_FILE, actor, recorded)
        config = _with_own_meshes(config, new)
        values = _manifest_values(actor, specs, config, origin or Origin(), new)
        _write_documents(new, values, records, assess)
        load_bundle(new)
        _replace_folder(folder, new)
    except OSError as error:
        raise ConfigError(
            f"--out {folder}: cannot be written ({error.strerror or error}); free some space or "
            "give another folder"
        ) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return read_manifest(folder)


def _write_documents(
    folder: Path, values: dict[str, Any], records: Records, assess: Assess
) -> None:
    """Writes what people and other runtimes read, and the manifest, which needs the rest."""
    has_memory = values["memory_shape"][2] > 0
    text = leapp_description(
        folder / POLICY_FILE,
        values["groups"],
        values["action_names"],
        values["auxiliary"],
        (MEMORY_IN, MEMORY_OUT) if has_memory else None,
        values["robot"].joint_names,
        values["task"].control_hz,
    )
    (folder / LEAPP_FILE).write_text(text, encoding="utf-8")
    manifest = seal_manifest(folder, values)
    assessments = assess(load_bundle(folder))
    if records:
        from dexgrasp_learner.evaluation.curves import as_png, learning_curve  # matplotlib

        (folder / CURVE_FILE).write_bytes(as_png(learning_curve(records)))
    card = model_card(folder, manifest, assessments)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    evaluations = tuple(assessment.record() for assessment in assessments)
    seal_manifest(folder, {**values, "evaluations": evaluations})


def _with_own_meshes(config: RunConfig, folder: Path) -> RunConfig:
    """The config with the mesh files of its objects copied into the bundle."""
    objects = list(config.task.objects)
    for index, item in enumerate(objects):
        if item.path is not None:
            copy = folder / MESHES / f"{index}_{item.path.name}"
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(item.path.read_bytes())
            objects[index] = replace(item, path=copy)
    if not (folder / MESHES).exists():
        return config
    return replace(config, task=replace(config.task, objects=tuple(objects)))


def _manifest_values(
    actor: Actor,
    specs: Mapping[str, TensorSpec],
    config: RunConfig,
    origin: Origin,
    folder: Path,
) -> dict[str, Any]:
    """What `seal_manifest` takes."""
    task = config.task
    meshes = {
        item.name: item.path.relative_to(folder).as_posix()
        for item in task.objects
        if item.path is not None
    }
    settings = settings_with_names(config)
    del settings["task"]  # it has a place of its own
    return {
        "groups": tuple(specs[name] for name in actor.groups),
        "action_names": task.action_names,
        "memory_shape": tuple(actor.initial_memory(1).shape),
        "auxiliary": specs[actor.auxiliary_group] if actor.auxiliary_group else None,
        "robot": _robot_identity(task),
        "task": task,
        "training": settings,
        "origin": origin,
        "objects": ObjectSources(len(task.objects), set_name(task.objects), meshes),
        "evaluations": (),
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
