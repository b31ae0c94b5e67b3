"""Faults put into real nodes over DDS; a program of its own, since it needs ROS.

Prints one JSON object with the list `outcomes`.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool

from benchmarks.deploy_fault_kinds.case import Outcome
from benchmarks.deploy_fault_kinds.ros_robot import Client, Robot, Running
from dexgrasp_deploy.processes import deploy_nodes
from dexgrasp_learner.storage.bundle import BundleManifest, read_manifest
from dexgrasp_msgs.action import Grasp
from dexgrasp_sim.bringup import NodeGroup, NodeSpec
from dexgrasp_sim.nodes.qos import COMMAND

_GOAL_S, _REACT_S, _GOES_ON_S = 60.0, 15.0, 1.5
_R = Grasp.Result
Inject = Callable[[Robot], None]


@dataclass(frozen=True)
class NodeCase:
    """A fault of a robot on topics, and the words of a right reaction; "": the robot goes on."""

    inject: Inject
    says: str


def _setting(**values: Any) -> Inject:
    def inject(robot: Robot) -> None:
        for name, value in values.items():
            setattr(robot, name, value)

    return inject


def _state(change: Callable[[JointState], None]) -> Inject:
    return _setting(on_state=change)


def _image(change: Callable[[Image], None]) -> Inject:
    return _setting(on_image=change)


def _nan(message: JointState) -> None:
    message.position[3] = float("nan")


def _degrees(message: JointState) -> None:
    message.position = array("d", [57.29577951308232 * each for each in message.position])


def _short(message: JointState) -> None:
    message.position = message.position[:-2]


def _reversed(message: JointState) -> None:
    message.name = [*message.name][::-1]
    message.position = message.position[::-1]


def _encoding(message: Image) -> None:
    message.encoding = "yuv422"


def _cut(message: Image) -> None:
    message.data = message.data[:-64]


def _black(message: Image) -> None:
    message.data = array("B", bytes(len(message.data)))


def _nan_depth(message: Image) -> None:
    message.encoding, message.step = "32FC1", 4 * message.width
    message.data = array(
        "B", np.full(message.width * message.height, np.nan, np.float32).tobytes()
    )


def _press(robot: Robot) -> None:
    robot.button.publish(Bool(data=True))


def _stranger(topic: str) -> Inject:
    def inject(robot: Robot) -> None:
        robot.stranger = rclpy.create_node("stranger", context=robot.context)
        robot.stranger.create_publisher(JointState, topic, COMMAND)

    return inject


def _set_parameter(name: str, value: float) -> Inject:
    """A parameter is changed while the robot runs; a change that is refused changes nothing."""

    def inject(robot: Robot) -> None:
        client = robot.node.create_client(SetParameters, "policy_node/set_parameters")
        robot.until(client.service_is_ready)
        parameter = Parameter(name, value=value).to_parameter_msg()
        future = client.call_async(SetParameters.Request(parameters=[parameter]))
        robot.until(future.done)
        answer = future.result()
        if answer is None or answer.results[0].successful:
            raise RuntimeError(f"{name} was changed in mid-run")

    return inject


def node_cases() -> dict[str, NodeCase]:
    """All cases of the policy node by name."""
    return {
        "joint_states stopped": NodeCase(_setting(measures=False), "too old"),
        "joint_states with NaN": NodeCase(_state(_nan), "is not finite"),
        "joint_states in degrees": NodeCase(_state(_degrees), "in degrees"),
        "joint_states with too few positions": NodeCase(_state(_short), "names"),
        "joint_states in another order": NodeCase(_state(_reversed), ""),
        "stamps 30 s ahead": NodeCase(_setting(ahead_s=30.0), "ahead of now"),
        "stamps 30 s behind": NodeCase(_setting(ahead_s=-30.0), "too old"),
        "images stopped": NodeCase(_setting(sees=False), "too old"),
        "camera covered": NodeCase(_image(_black), "every pixel is 0"),
        "depth image of NaN": NodeCase(_image(_nan_depth), "every pixel is 0"),
        "image of an unknown encoding": NodeCase(_image(_encoding), "is not understood"),
        "image with too few bytes": NodeCase(_image(_cut), "bytes"),
        "driver obeys somebody else": NodeCase(_setting(echo=2.5), "has obeyed no command"),
        "emergency stop on the topic": NodeCase(_press, "emergency stop"),
        "emergency stop by the service": NodeCase(
            lambda robot: (robot.trigger("estop"), None)[1], "emergency stop"
        ),
        "heartbeat lost": NodeCase(_setting(beats=False), "no heartbeat"),
        "second commander": NodeCase(_stranger("joint_command"), "/stranger"),
        "second driver": NodeCase(_stranger("joint_states"), "/stranger"),
        "limit raised in mid-run": NodeCase(_set_parameter("safety.velocity_scale", 0.9), ""),
        "speed raised in mid-run": NodeCase(_set_parameter("speed_scale", 1.0), ""),
        "goal cancelled": NodeCase(lambda _: None, "cancelled"),
    }


def _run_node_case(name: str, case: NodeCase, robot: Robot) -> Outcome:
    if not robot.settle():
        return _outcome(name, "node", robot, False, "was not settled", None)
    robot.heal()
    running = robot.begin(_GOAL_S)
    if running is None:
        return _outcome(name, "node", robot, False, "the robot did not start", None)
    begun_s = time.monotonic()
    try:
        case.inject(robot)
    except RuntimeError as error:
        return _outcome(name, "node", robot, False, str(error), None)
    if name == "goal cancelled":
        running.handle.cancel_goal_async()
    outcome = _react(name, "node", robot, running, case.says, begun_s)
    running.handle.cancel_goal_async()
    robot.until(lambda: running.over)
    _undo(robot)
    return outcome


def _undo(robot: Robot) -> None:
    robot.button.publish(Bool(data=False))
    if robot.stranger is not None:
        robot.stranger.destroy_node()
    robot.heal()


def _react(
    name: str, where: str, client: Client, running: Running, says: str, begun_s: float
) -> Outcome:
    """Waits for the reaction; where none is right, sees that the commands go on."""
    if not says:
        before = client.count.commands
        client.until(lambda: running.over, _GOES_ON_S)
        on = not running.over and client.count.commands > before
        return _outcome(name, where, client, on, "went on" if on else "stopped", None)
    result = running.result(_REACT_S)
    if result is None:
        return _outcome(name, where, client, False, "no reaction", None)
    reaction_s = time.monotonic() - begun_s
    handled = says in result.error_msg and not result.success
    return _outcome(name, where, client, handled, result.error_msg, reaction_s)


def _outcome(
    name: str, where: str, client: Client, handled: bool, said: str, reaction_s: float | None
) -> Outcome:
    count, rounded = client.count, None if reaction_s is None else round(reaction_s, 3)
    outcome = Outcome(name, where, handled, said, rounded, count.commands, count.out_of_limits)
    count.commands = count.out_of_limits = 0
    return outcome


@dataclass(frozen=True)
class TwinCase:
    """A fault of a process of the simulated robot.

    Attributes:
        node: Which.
        strike: Does it to a process id.
        says: Words of a right reaction; "": the robot goes on.
        lasts_s: So long it lasts.
        told: Words that the node must say of itself on `/diagnostics`; "": none.
    """

    node: str
    strike: Callable[[int], object]
    says: str = "too old"
    lasts_s: float = 0.0
    told: str = ""


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _hang(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def _fill_disk(pid: int) -> None:
    """No file of the process can grow any more, as on a full disk."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


TWIN_CASES = {
    "robot driver killed": TwinCase("robot_driver_node", _kill),
    "robot driver hangs": TwinCase("robot_driver_node", _hang),
    "camera driver killed": TwinCase("camera_node", _kill),
    "camera driver hangs": TwinCase("camera_node", _hang),
    "policy node hangs for 2 s": TwinCase("policy_node", _hang, lasts_s=2.0),
    "recorder killed": TwinCase("recorder_node", _kill, says=""),
    "disk full while recording": TwinCase(
        "recorder_node", _fill_disk, says="", told="cannot be written"
    ),
}


def _run_twin_case(
    name: str, bundle: Path, max_age_s: float, manifest: BundleManifest, folder: Path
) -> Outcome:
    case = TWIN_CASES[name]
    records = case.node == "recorder_node"
    record = folder / name.replace(" ", "_") if records else None
    specs = _relaxed(deploy_nodes("sim", bundle, record=record), max_age_s)
    client = Client(manifest, "operator")
    try:
        with NodeGroup(specs, os.environ, folder) as group:
            # the goal waits for the camera, which compiles its kernels first
            running = client.begin(_GOAL_S) if client.settle() else None
            if running is None:
                return _outcome(name, "twin", client, False, "the robot did not start", None)
            if records:
                client.until(lambda: "recording" in _said(client, case.node))
            begun_s = time.monotonic()
            case.strike(group.pid(case.node))
            if case.lasts_s:
                client.until(lambda: False, case.lasts_s)
                os.kill(group.pid(case.node), signal.SIGCONT)
            outcome = _react(name, "twin", client, running, case.says, begun_s)
            if case.told:
                told = client.until(lambda: case.told in _said(client, case.node))
                said = f"{outcome.reaction}; {case.node}: {_said(client, case.node)}"
                outcome = replace(outcome, handled=outcome.handled and told, reaction=said)
            os.kill(group.pid(case.node), signal.SIGCONT)
            return outcome
    finally:
        client.close()


def _said(client: Client, node: str) -> str:
    """What a node says of itself on `/diagnostics`."""
    return "; ".join(text for name, text in client.health.items() if name.startswith(node))


def _relaxed(specs: list[NodeSpec], max_age_s: float) -> list[NodeSpec]:
    """The policy node with other ages of measurements, a heartbeat, and half the speed."""
    own = {
        "freshness.max_joint_age_s": max_age_s,
        "freshness.max_image_age_s": max_age_s,
        "speed_scale": 0.5,
    }
    return [
        NodeSpec(s.package, s.executable, s.name, {**s.parameters, **own})
        if s.name == "policy_node"
        else s
        for s in specs
    ]


def outcomes(args: argparse.Namespace) -> Iterator[Outcome]:
    """Runs the chosen cases."""
    manifest = read_manifest(args.bundle)
    specs = _relaxed(deploy_nodes("sim", args.bundle), args.max_age_s)
    node_names = [name for name in node_cases() if args.only in name and "node" in args.kinds]
    twin_names = [name for name in TWIN_CASES if args.only in name and "twin" in args.kinds]
    with tempfile.TemporaryDirectory(prefix="dexgrasp_faults_") as text:
        folder = Path(text)
        if node_names:
            (policy,) = (spec for spec in specs if spec.name == "policy_node")
            heart = {**policy.parameters, "estop.heartbeat_s": max(1.0, args.max_age_s)}
            policy = NodeSpec(policy.package, policy.executable, policy.name, heart)
            robot = Robot(manifest)
            try:
                with NodeGroup([policy], os.environ, folder):
                    for name in node_names:
                        yield _run_node_case(name, node_cases()[name], robot)
            finally:
                robot.close()
        for name in twin_names:
            yield _run_twin_case(name, args.bundle, args.max_age_s, manifest, folder)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--kinds", default="node,twin")
    parser.add_argument("--only", default="")
    parser.add_argument("--max-age-s", type=float, default=0.3)
    args = parser.parse_args()
    found = []
    for outcome in outcomes(args):
        found.append(outcome.as_dict())
        said = "handled" if outcome.handled else "NOT HANDLED"
        print(f"{outcome.fault}: {said}: {outcome.reaction}", file=sys.stderr, flush=True)
    print(json.dumps({"outcomes": found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
