"""`dexgrasp inspect`: describes the robot or the observations, as text or JSON."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dexgrasp_learner.config import task_of
from dexgrasp_sim.arguments import add_config, add_json
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, Robot, load_robot, robot_names
from dexgrasp_sim.robot.rotation import matrix_to_zyx_euler
from dexgrasp_sim.specs import schema_hash
from dexgrasp_sim.tasks.grasp.observations import GROUPS, observation_spec


@dataclass(frozen=True)
class Report:
    """A description: plain values for `--json`, and lines of text."""

    values: dict[str, Any]
    lines: tuple[str, ...]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `dexgrasp inspect`."""
    parser.add_argument("subject", choices=sorted(SUBJECTS), help="what to describe")
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


SUBJECTS: dict[str, Callable[[Namespace], Report]] = {
    "robot": inspect_robot,
    "observations": inspect_observations,
}
