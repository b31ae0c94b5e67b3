"""`dexgrasp bench deploy_faults`: faults of a deployed robot, and how soon it reacts.

`core` puts them into the control loop on mock devices whose time is simulated; `node` into the
topics of a policy node; `twin` into the processes of the simulated robot. A fault is handled if
the robot reacts as it should: goes on, stops and holds, or is refused its start, and says why.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.deploy_fault_kinds.case import write_small_bundle
from benchmarks.deploy_fault_kinds.core import core_cases, run_core_case
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.arguments import number
from dexgrasp_sim.bringup import free_domain_id
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.ros_environment import ros_environment

KINDS = ("core", "node", "twin")
_TIMEOUT_S = 1800.0
_CONTROL_HZ, _EPISODE_S = 15.0, 4.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench deploy_faults`."""
    parser.add_argument("--kinds", default=",".join(KINDS), help="with commas between")
    parser.add_argument("--only", default="", help="faults with this text in their name")
    parser.add_argument(
        "--max-age-s",
        type=number(above=0.0, most=3600.0),
        default=0.3,
        help="age of measurements that is allowed in real nodes (a busy computer needs more)",
    )


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: `injected`, `handled`, `out_of_limit_commands` and the `cases`.

    Raises:
        ConfigError: An argument is not allowed.
    """
    kinds = args.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        raise ConfigError(f"--kinds {', '.join(sorted(unknown))}: must be of {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="dexgrasp_deploy_faults_") as folder:
        bundle = write_small_bundle(Path(folder) / "bundle", _CONTROL_HZ, _EPISODE_S)
        cases = _core(bundle, args.only) if "core" in kinds else []
        if {"node", "twin"} & set(kinds):
            cases += _nodes(bundle, kinds, args.only, args.max_age_s)
    figures = {
        "injected": len(cases),
        "handled": sum(case["handled"] for case in cases),
        "commands": sum(case["commands"] for case in cases),
        "out_of_limit_commands": sum(case["out_of_limits"] for case in cases),
        "not_handled": [case["fault"] for case in cases if not case["handled"]],
        "cases": cases,
    }
    return {"kinds": kinds, "max_age_s": args.max_age_s}, figures


def _core(bundle: Path, only: str) -> list[dict[str, Any]]:
    manifest = read_manifest(bundle)
    robot = manifest.task.load_robot()
    chosen = {name: case for name, case in core_cases().items() if only in name}
    progress = tqdm(chosen.items(), desc="bench deploy_faults", unit="fault", disable=None)
    return [run_core_case(name, case, manifest, robot).as_dict() for name, case in progress]


def _nodes(bundle: Path, kinds: list[str], only: str, max_age_s: float) -> list[dict[str, Any]]:
    """The faults of real nodes, in a process that has ROS."""
    environment = ros_environment()
    environment["ROS_DOMAIN_ID"] = str(free_domain_id())
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = f"{root}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.deploy_fault_kinds.node_cases"),
            *("--bundle", str(bundle), "--kinds", ",".join(kinds), "--only", only),
            *("--max-age-s", str(max_age_s)),
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])["outcomes"]
