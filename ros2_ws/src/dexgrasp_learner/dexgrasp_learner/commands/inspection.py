"""`dexgrasp inspect`: describes the robot, the observations or a bundle, as text or JSON."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dexgrasp_learner.config import task_of
from dexgrasp_sim.arguments import add_config, add_json
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, Robot, load_robot, robot_names
from dexgrasp_sim.robot.rotation import matrix_to_zyx_euler
from dexgrasp_sim.specs import schema_hash
from dexgrasp_sim.tasks.grasp.observations import GROUPS, observation_spec

if TYPE_CHECKING:
    from dexgrasp_learner.storage.bundle import BundleManifest


@dataclass(frozen=True)
class Report:
    """A description: plain values for `--json`, and lines of text."""

    values: dict[str, Any]
    lines: tuple[str, ...]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `dexgrasp inspect`."""
    parser.add_argument("subject", choices=sorted(SUBJECTS), help="what to describe")
    parser.add_argument("path", type=Path, nargs="?", help="folder of the bundle to describe")
    parser.add_argument(
        "--robot",
        default="",
        help=f"one of {', '.join(robot_names())}, or a robot.yaml (default: that of --config, "
        f"else {DEFAULT_ROBOT})",
    )
    add_config(parser, "run config whose task to describe (default: the default task)")
    add_json(parser)


def run(args: Namespace) -> int:
    """Prints the report on the chosen subject; returns the exit code."""
    if (args.path is None) == (args.subject == "bundle"):
        raise ConfigError(
            "inspect bundle: give the folder of a bundle"
            if args.path is None
            else f"inspect {args.subject}: takes no path, but there is {args.path}; leave it out"
        )
    report = SUBJECTS[args.subject](args)
    print(json.dumps(report.values) if args.json else "\n".join(report.lines))
    return 0


def inspect_robot(args: Namespace) -> Report:
    """Joints, limits, masses, and the palm pose at the relaxed posture."""
    robot = load_robot(args.robot or task_of(args.config, args.overrides).robot)
    relaxed = torch.tensor([robot.postures["relaxed"]], dtype=torch.float64)
    palm = Kinematics(robot, (robot.palm,), dtype=torch.float64).forward(relaxed)
    values = {
        "robot": robot.name,
        "file": str(robot.path),
        "urdf": str(robot.urdf_path),
        "joint_names": list(robot.joint_names),
        "arm": list(robot.arm_joints),
        "fingers": {finger.name: list(finger.joints) for finger in robot.fingers},
        "synergies": [synergy.name for synergy in robot.palm_velocity.synergies],
        "action_spaces": ["velocity", *(["fabric"] if robot.fabric else [])],
        "lower_rad": robot.lower.tolist(),
        "upper_rad": robot.upper.tolist(),
        "velocity_limit_rad_s": robot.velocity_limit.tolist(),
        "effort_limit_nm": robot.effort_limit.tolist(),
        "total_mass_kg": robot.total_mass,
        "collision_shapes": sum(len(link.collisions) for link in robot.links.values()),
        "frames": list(robot.frames),
        "palm_xyz": palm.position[0, 0].tolist(),
        "palm_zyx_euler": matrix_to_zyx_euler(palm.rotation[0, 0]).tolist(),
    }
    return Report(values, _robot_lines(robot, values))


def _robot_lines(robot: Robot, values: dict[str, Any]) -> tuple[str, ...]:
    joints = [robot.joints[name] for name in robot.joint_names]
    return (
        f"{robot.name}: {robot.num_joints} joints, {len(robot.links)} frames, "
        f"{robot.total_mass:.2f} kg, {values['collision_shapes']} collision shapes",
        values["file"],
        values["urdf"],
        f"{'joint':<16}{'lower':>10}{'upper':>10}{'velocity':>10}{'effort':>10}",
        f"{'':<16}{'rad':>10}{'rad':>10}{'rad/s':>10}{'N m':>10}",
        *(
            f"{joint.name:<16}{joint.lower:>10.4f}{joint.upper:>10.4f}"
            f"{joint.velocity:>10.4f}{joint.effort:>10.2f}"
            for joint in joints
        ),
        f"fingers: {', '.join(values['fingers'])}; synergies: {', '.join(values['synergies'])}; "
        f"action spaces: {', '.join(values['action_spaces'])}",
        "palm at the relaxed posture: "
        f"xyz {_numbers(values['palm_xyz'])} m, zyx {_numbers(values['palm_zyx_euler'])} rad",
    )


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def inspect_observations(args: Namespace) -> Report:
    """Observation groups of a task with their terms, and the names of the action's elements."""
    config = task_of(args.config, args.overrides)
    specs = [observation_spec(config, group) for group in GROUPS]
    lines = [f"{'group':<12}{'term':<30}{'shape':<14}{'type':<9}{'unit':<10}frame"]
    for spec in specs:
        shape = "x".join(map(str, spec.shape))
        lines.append(f"{spec.name:<42}{shape:<14}{spec.dtype:<9}{spec.unit:<10}{spec.frame}")
        lines += [
            f"{'':<12}{term.name:<30}{term.size:<23}{term.unit:<10}{term.frame}"
            for term in spec.terms
        ]
    names = config.action_names
    lines.append(f"{'action':<42}{len(names):<14}{'float32':<9}-1 to 1    {config.action.kind}")
    lines += [f"{'':<12}{name}" for name in names]
    values = {
        "groups": [spec.to_dict() for spec in specs],
        "schema_hash": schema_hash(specs),
        "action": {"kind": config.action.kind, "names": list(names)},
    }
    return Report(values, tuple(lines))


def inspect_bundle(args: Namespace) -> Report:
    """What a bundle is and can do, after all its files were checked and its policy has run."""
    # loads the runtime, which the other subjects do not need
    from dexgrasp_learner.storage.bundle import check_documents, load_bundle

    manifest = load_bundle(args.path).manifest
    check_documents(args.path, manifest)
    task, origin = manifest.task, manifest.origin
    values = {
        "bundle": str(args.path),
        "bundle_id": manifest.bundle_id,
        "robot": manifest.robot.name,
        "groups": {spec.name: list(spec.shape) for spec in manifest.groups},
        "action": {"kind": task.action.kind, "names": list(manifest.action_names)},
        "memory": manifest.memory_shape[2],
        "control_hz": task.control_hz,
        "objects": asdict(manifest.objects),
        "origin": asdict(origin),
        "config": manifest.training.get("name"),
        "seed": manifest.training.get("seed"),
        "evaluations": list(manifest.evaluations),
        "files": manifest.files,
        "bytes": sum((args.path / name).stat().st_size for name in manifest.files),
    }
    return Report(values, _bundle_lines(manifest, values))


def _bundle_lines(manifest: "BundleManifest", values: dict[str, Any]) -> tuple[str, ...]:
    origin = manifest.origin
    sees = ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in values["groups"].items())
    steps = "unknown" if origin.env_steps is None else f"{origin.env_steps:,} steps"
    minutes = "" if origin.minutes is None else f" in {origin.minutes:.1f} min"
    cpu_minutes = "" if origin.cpu_minutes is None else f" ({origin.cpu_minutes:.1f} CPU min)"
    action = values["action"]
    return (
        f"bundle {manifest.bundle_id} in {values['bundle']}: {len(manifest.files)} files, "
        f"{values['bytes'] / 1e6:.1f} MB, all as exported; acts as in the learner",
        f"robot     {values['robot']}",
        f"sees      {sees}",
        f"acts      {len(action['names'])} numbers ({action['kind']}) at "
        f"{values['control_hz']:g} Hz, memory of {values['memory']}",
        f"objects   {manifest.objects.in_words}",
        f"trained   {origin.algorithm or 'unknown'}, config {values['config']}, seed "
        f"{values['seed']}, {steps}{minutes}{cpu_minutes}",
        f"          on {origin.cpu or 'unknown hardware'}"
        + (f", {origin.cores} cores" if origin.cores else "")
        + (f", {origin.gpu}" if origin.gpu else "")
        + f"; commit {origin.commit or 'unknown'}",
        *(f"measured  {_evaluation_line(figures)}" for figures in manifest.evaluations),
        *(() if manifest.evaluations else ("measured  never; export with --evaluate",)),
        "files     " + ", ".join(manifest.files),
    )


def _evaluation_line(figures: dict[str, Any]) -> str:
    swapped = figures["swapped_images"]
    control = f", with other images {swapped['success_rate']:.3f}" if swapped else ""
    return (
        f"{figures['success_rate']:.3f} ({figures['success_low']:.3f} to "
        f"{figures['success_high']:.3f}) of {figures['episodes']} episodes with "
        f"{figures['object_set'] or 'its own'} objects{control}"
    )


SUBJECTS: dict[str, Callable[[Namespace], Report]] = {
    "robot": inspect_robot,
    "observations": inspect_observations,
    "bundle": inspect_bundle,
}
