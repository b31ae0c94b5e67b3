"""`dexgrasp doctor`: what is installed, what works, and what dead runs have left behind."""

import argparse
import importlib
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexgrasp_sim.arguments import add_json, number
from dexgrasp_sim.config import ConfigError

if TYPE_CHECKING:
    from dexgrasp_sim.physics.backends import Backend

_OF_ROBOT = ("bundle", "params", "arm", "hand", "camera", "calibration")
_SELF_TEST = "dexgrasp_deploy.nodes.self_test"
_SELF_TEST_TIMEOUT_S = 30.0
_NO_DISCOVERY = (
    "ROS self-test: two participants on this host do not find each other; bring the interface "
    "`lo` up, and let no firewall block UDP on it"
)
_NOT_LOADED = re.compile(r"ModuleNotFoundError|ImportError|shared object|UnsupportedTypeSupport")
_SHM_NEEDED_MB = 64.0
"""Enough for the laptop preset; the usual 64 MB of a container may be slightly too small."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp doctor`."""
    parser.add_argument(
        "--robot",
        action="store_true",
        help="check the computer, devices, topics and clock of a robot; moves nothing",
    )
    only = "with --robot: "
    parser.add_argument("--bundle", type=Path, help=f"{only}policy bundle folder")
    parser.add_argument("--params", type=Path, help=f"{only}ROS parameter file of hardware.launch")
    for kind in ("arm", "hand", "camera"):
        text = f"{only}driver or profile of the {kind}, as {kind}_driver of hardware.launch.py"
        parser.add_argument(f"--{kind}", metavar="DRIVER", help=text)
    parser.add_argument("--calibration", type=Path, help=f"{only}folder of `dexgrasp calibrate`")
    parser.add_argument(
        "--seconds",
        type=number(above=0.0, most=600.0),
        default=3.0,
        help=f"{only}how long streams are measured (default 3)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the report.

    Returns:
        0 when training and deployment in simulation can work here, or with `--robot` when no check
        failed; else 1.

    Raises:
        ConfigError: An argument is wrong.
    """
    if args.robot:
        from dexgrasp_deploy.commands import doctor_robot

        return doctor_robot.run(args)
    given = [name for name in _OF_ROBOT if getattr(args, name) is not None]
    if given:
        raise ConfigError(f"--{given[0]} is for `dexgrasp doctor --robot`; add --robot")
    report = examine()
    print(json.dumps(report) if args.json else _table(report))
    return 0 if report["ok"] else 1


def examine() -> dict[str, Any]:
    """Checks this machine and this installation.

    Returns:
        JSON values: `ok`, `problems` (what is wrong and what to do, one text each), `hints` (what
        may be wrong), `python`, `torch`, `gpu` (names), `ros`, `messages`, `backends`, `robots`,
        `shm_free_mb`, `dead_runs` (folders of runs whose learner is gone).
    """
    import torch

    from dexgrasp_sim.physics.backends import BACKENDS
    from dexgrasp_sim.robot.robot import robot_names
    from dexgrasp_sim.transport.shared_memory import SHARED_MEMORY_ROOT

    ros = _check_ros()
    problems = ros.problems
    backends = {name: _check_backend(backend) for name, backend in BACKENDS.items()}
    if not any(state["available"] for state in backends.values()):
        reasons = "; ".join(state["reason"] for state in backends.values())
        problems.append(f"no physics: {reasons}")
    shm_free_mb = shutil.disk_usage(SHARED_MEMORY_ROOT).free / 1e6
    if shm_free_mb < _SHM_NEEDED_MB:
        problems.append(
            f"{SHARED_MEMORY_ROOT} has {shm_free_mb:.0f} MB free, {_SHM_NEEDED_MB:.0f} MB are "
            "needed; remove what fills it, or enlarge it (docker run --shm-size=1g)"
        )
    return {
        "ok": not problems,
        "problems": problems,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "hints": ros.hints,
        "ros": ros.found,
        "messages": ros.messages,
        "backends": backends,
        "robots": list(robot_names()),
        "shm_free_mb": round(shm_free_mb, 1),
        "dead_runs": _dead_runs(),
    }


@dataclass
class _Ros:
    """What was found out about ROS: its source, and whether a message went through it."""

    found: dict[str, Any]
    messages: bool = False
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def _check_ros() -> _Ros:
    """Checks the settings of ROS, and if they are right runs the self-test as a child."""
    from dexgrasp_sim.ros_environment import WorkspaceError, ros_environment, wheels_distro
    from dexgrasp_sim.ros_settings import find_problems

    wheels = wheels_distro()
    ros = _Ros({"source": "wheels" if wheels else None, "distro": wheels})
    try:
        environment = ros_environment()
    except WorkspaceError as error:
        ros.problems.append(str(error))
        return ros
    if wheels is None and "ROS_DISTRO" in environment:
        ros.found = {"source": "system", "distro": environment["ROS_DISTRO"]}
    ros.problems = find_problems(environment)
    ros.hints = find_problems(environment, stops=False)
    if not ros.problems:
        _run_self_test(ros, environment)
    return ros


def _run_self_test(ros: _Ros, environment: dict[str, str]) -> None:
    try:
        result = subprocess.run(
            [sys.executable, "-m", _SELF_TEST],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SELF_TEST_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        ros.problems.append(f"the ROS self-test did not end within {_SELF_TEST_TIMEOUT_S} s")
        return
    ros.messages = result.returncode == 0
    if result.stdout.strip():
        ros.found |= json.loads(result.stdout.splitlines()[-1])
        if not ros.messages:
            ros.problems.append(_NO_DISCOVERY)
        return
    reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
    # only what cannot be imported or loaded is mended by building it anew
    remedy = "; run `make clean setup`" if _NOT_LOADED.search(reason) else ""
    ros.problems.append(f"ROS self-test: {reason}{remedy}")


def _check_backend(backend: "Backend") -> dict[str, Any]:
    try:
        module = importlib.import_module(backend.module)
        if hasattr(module, "installed_version"):  # in an environment of its own
            return {"available": True, "version": module.installed_version()}
        return {"available": True, "version": metadata.version(backend.package)}
    except ConfigError as error:
        return {"available": False, "reason": str(error)}
    except (ImportError, metadata.PackageNotFoundError) as error:
        reason = f"{backend.package} cannot be imported ({error}); {backend.remedy}"
        return {"available": False, "reason": reason}


def _dead_runs() -> list[str]:
    from dexgrasp_sim.transport.shared_memory import dead_runs

    return [str(folder) for folder in dead_runs()]


def _table(report: dict[str, Any]) -> str:
    ros, dead = report["ros"], report["dead_runs"]
    rows = [
        ("python", report["python"]),
        ("torch", report["torch"]),
        ("gpu", ", ".join(report["gpu"]) or "none"),
        ("ros", f"{ros['distro']} from {ros['source']}" if ros["source"] else "none"),
        ("messages", "sent and received" if report["messages"] else "FAILED"),
        *((f"backend {name}", _backend_text(state)) for name, state in report["backends"].items()),
        ("robots", ", ".join(report["robots"])),
        ("shared memory", f"{report['shm_free_mb']:.0f} MB free"),
        ("dead runs", ", ".join(dead) + " (the next run removes them)" if dead else "none"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:{width}}  {value}" for name, value in rows]
    lines += [f"HINT: {hint}" for hint in report["hints"]]
    lines += [f"PROBLEM: {problem}" for problem in report["problems"]]
    return "\n".join([*lines, "", "all good" if report["ok"] else "not ready"])


def _backend_text(state: dict[str, Any]) -> str:
    return state["version"] if state["available"] else f"not available: {state['reason']}"
