"""`dexgrasp doctor --robot`: whether a robot's computer, devices and ROS graph are ready."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from dexgrasp_deploy.checks import devices, graph, machine
from dexgrasp_deploy.checks.deployment import (
    Deployment,
    bundle_and_robot,
    calibration,
    read_deployment,
)
from dexgrasp_deploy.checks.finding import Finding, failed, lines, ok, report, unknown, warning
from dexgrasp_deploy.checks.graph_facts import GraphFacts
from dexgrasp_deploy.checks.machine import Machine
from dexgrasp_deploy.checks.topics import TopicUse, topic_uses
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.ros_environment import WorkspaceError, ros_environment
from dexgrasp_sim.ros_settings import find_problems

_LISTENER = "dexgrasp_deploy.nodes.graph_listener"
_START_S = 120.0
"""Time in which a process of ROS starts and ends on a busy computer."""
_USUAL_IMAGE = 640 * 480 * 3
"""Bytes; taken where no image has arrived."""


class Situation(NamedTuple):
    """What the checks look at.

    Attributes:
        machine: The computer.
        deployment: What is to run on it.
        uses: Topics of its drivers.
        facts: What was seen on the ROS graph; None: nothing could be.
        seconds: How long a stream is measured.
    """

    machine: Machine
    deployment: Deployment
    uses: Sequence[TopicUse]
    facts: GraphFacts | None
    seconds: float


class Check(NamedTuple):
    """One row of the table.

    Attributes:
        name: For the line of a check that breaks.
        run: Gives its findings; a ConfigError is one, too.
    """

    name: str
    run: Callable[[Situation], Iterable[Finding]]


def _on_graph(run: Callable[[GraphFacts, Situation], Iterable[Finding]], name: str) -> Check:
    def check(situation: Situation) -> Iterable[Finding]:
        if situation.facts is None:
            return [unknown(name, "ROS could not be looked at")]
        return run(situation.facts, situation)

    return Check(name, check)


def _dds(situation: Situation) -> Iterator[Finding]:
    seen = graph.largest_image(situation.facts) if situation.facts else 0
    return machine.dds_memory(situation.machine, seen or _USUAL_IMAGE)


CHECKS = (
    Check("ROS settings", lambda s: settings(s.machine)),
    _on_graph(lambda facts, s: graph.domain(facts), "ROS graph"),
    _on_graph(lambda facts, s: graph.commanders(facts, s.uses), "commanders"),
    _on_graph(lambda facts, s: graph.ends(facts, s.uses), "ends of topics"),
    _on_graph(lambda facts, s: graph.rates(facts, s.uses, s.deployment), "rates"),
    _on_graph(lambda facts, s: graph.joints(facts, s.deployment), "joints"),
    Check("DDS shared memory", _dds),
    Check("clock", lambda s: machine.clock(s.machine)),
    _on_graph(lambda facts, s: graph.clock_jumps(facts), "clock jumps"),
    Check("real time", lambda s: machine.real_time(s.machine)),
    Check("kernel", lambda s: machine.kernel(s.machine)),
    Check("CPU governor", lambda s: machine.governor(s.machine)),
    Check("RealSense on USB", lambda s: devices.usb(s.machine, s.deployment)),
    Check("camera stream", lambda s: devices.camera_stream(s.deployment, s.seconds)),
    Check("CAN", lambda s: devices.can(s.machine, s.deployment)),
    Check("bundle", lambda s: bundle_and_robot(s.deployment)),
    Check("calibration", lambda s: calibration(s.deployment)),
)
"""In the order of the report."""


def run(args: argparse.Namespace) -> int:
    """Prints the report; 1 when a check failed, else 0.

    Raises:
        ConfigError: An argument, the parameter file or the bundle is wrong.
    """
    drivers = {"arm": args.arm, "hand": args.hand, "camera": args.camera}
    deployment = read_deployment(args.bundle, args.params, drivers, args.calibration)
    findings = examine(deployment, args.seconds)
    if args.json:
        print(json.dumps(report(findings)))
    else:
        print("\n".join(lines(findings)))
    return 0 if report(findings)["ok"] else 1


def examine(deployment: Deployment, seconds: float) -> list[Finding]:
    """Everything that can be found out without moving anything.

    Args:
        deployment: What is to run.
        seconds: How long streams are measured.

    Raises:
        ConfigError: A parameter of a driver is wrong.
    """
    uses = list(topic_uses(deployment))
    try:
        computer = Machine(environment=ros_environment())
    except WorkspaceError as error:
        situation = Situation(Machine(), deployment, uses, None, seconds)
        return [failed("ROS workspace", str(error)), *_run_all(situation)]
    facts = None
    broken: list[Finding] = []
    if not find_problems(computer.environment):
        try:
            facts = look(computer, uses, seconds)
        except ConfigError as error:
            broken = [failed("ROS graph", str(error))]
    return [*broken, *_run_all(Situation(computer, deployment, uses, facts, seconds))]


def _run_all(situation: Situation) -> Iterator[Finding]:
    for check in CHECKS:
        try:
            yield from check.run(situation)
        except ConfigError as error:
            yield failed(check.name, str(error))


def settings(computer: Machine) -> Iterator[Finding]:
    """The settings of ROS in the environment."""
    problems = find_problems(computer.environment)
    hints = find_problems(computer.environment, stops=False)
    for text in problems:
        yield failed("ROS settings", text)
    for text in hints:
        yield warning("ROS settings", text, "")
    if not problems and not hints:
        yield ok("ROS settings", "nothing wrong in the environment")


def look(computer: Machine, uses: Sequence[TopicUse], seconds: float) -> GraphFacts:
    """What a listener in a process of its own, with the environment of ROS, sees.

    Raises:
        ConfigError: It does not start or end.
    """
    topics = [
        {"topic": use.topic, "type": use.type, "listen": use.role in ("state", "image")}
        for use in uses
        if "/srv/" not in use.type
    ]
    task = json.dumps({"seconds": seconds, "topics": topics})
    try:
        result = subprocess.run(
            [sys.executable, "-m", _LISTENER, task],
            env=dict(computer.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_S + seconds,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError("ROS does not answer; run `dexgrasp doctor`") from None
    if result.returncode or not result.stdout.strip():
        last = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise ConfigError(f"ROS does not start: {last}; run `dexgrasp doctor`")
    content = json.loads(result.stdout.splitlines()[-1])
    return parse_config(GraphFacts, content, "the listener")
