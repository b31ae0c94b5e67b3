"""What is to run on a robot: bundle, drivers and parameters, checked against each other."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from dexgrasp_deploy.calibration.results.extrinsics import read_extrinsics
from dexgrasp_deploy.checks.finding import Finding, failed, ok, unknown, warning
from dexgrasp_deploy.control.sensing.streams import FreshnessConfig
from dexgrasp_deploy.drivers.camera_config import PlaceConfig
from dexgrasp_deploy.drivers.placement import drivers_own, place_camera
from dexgrasp_deploy.drivers.registry import KINDS
from dexgrasp_deploy.parameter_file import with_parameter_file
from dexgrasp_deploy.processes import PACKAGE, calibration_parameters
from dexgrasp_learner.storage.bundle import (
    ACTION,
    MEMORY_IN,
    VECTORS_FILE,
    BundleManifest,
    load_bundle,
    read_manifest,
    read_vectors,
    run_step,
)
from dexgrasp_learner.storage.checkpoint_files import sha256
from dexgrasp_sim.bringup import NodeSpec
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, Robot, load_robot

_BIG_SHARE = 0.5
"""A policy that needs a larger share of its period leaves too little for all the rest."""
_OLD_SHARE = 0.75


@dataclass(frozen=True)
class Deployment:
    """What is to run.

    Attributes:
        bundle: Its folder; None: none was named.
        manifest: Of the bundle.
        robot: The robot.
        drivers: Driver by kind (`arm`, `hand`, `camera`); "" where none is named.
        parameters: Those of the drivers by kind, by dotted name without `<kind>.`.
        freshness: Which measurements the policy node acts on.
    """

    bundle: Path | None
    manifest: BundleManifest | None
    robot: Robot
    drivers: Mapping[str, str]
    parameters: Mapping[str, Mapping[str, Any]]
    freshness: FreshnessConfig

    @property
    def rate_hz(self) -> float | None:
        """How often the policy acts; None without a bundle."""
        return None if self.manifest is None else self.manifest.task.control_hz

    @property
    def camera_drivers_own(self) -> dict[str, Any]:
        """Parameters of the camera's driver itself."""
        return drivers_own(self.parameters["camera"])


def read_deployment(
    bundle: Path | None,
    params: Path | None,
    drivers: Mapping[str, str | None],
    calibration: Path | None,
) -> Deployment:
    """Reads what `hardware.launch.py` would start with the same arguments.

    Args:
        bundle: Policy bundle folder.
        params: ROS parameter file.
        drivers: Driver by kind; None: that of the parameter file.
        calibration: Folder of `dexgrasp calibrate`.

    Raises:
        ConfigError: A file is missing or wrong, or a parameter of `freshness`.
    """
    manifest = None if bundle is None else read_manifest(bundle)
    names = ("robot_driver_node", "camera_node", "policy_node")
    nodes = [NodeSpec(PACKAGE, name, name) for name in names]
    if params is not None:
        nodes = with_parameter_file(nodes, params)
    joints, camera, policy = (dict(node.parameters) for node in nodes)
    values = {kind: _under(kind, camera if kind == "camera" else joints) for kind in KINDS}
    chosen = {kind: drivers[kind] or str(values[kind].pop("driver", "")) for kind in KINDS}
    if calibration is not None:
        files = calibration_parameters("hardware", chosen["camera"], str(calibration))
        values["camera"] = {**_under("camera", files), **values["camera"]}
    robot = str(joints.get("robot", "")) or (manifest.task.robot if manifest else DEFAULT_ROBOT)
    freshness = parse_config(
        FreshnessConfig, _under("freshness", policy), "parameters under freshness."
    )
    return Deployment(bundle, manifest, load_robot(robot), chosen, values, freshness)


def _under(prefix: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    start = f"{prefix}."
    return {
        name.removeprefix(start): value
        for name, value in parameters.items()
        if name.startswith(start)
    }


def bundle_and_robot(deployment: Deployment) -> Iterator[Finding]:
    """The policy runs here as in the learner, in time, and is one for this robot."""
    manifest, robot = deployment.manifest, deployment.robot
    if manifest is None or deployment.bundle is None:
        yield unknown("bundle", "none named", "give --bundle")
        return
    try:
        milliseconds = _step_ms(deployment.bundle)
    except ConfigError as error:
        yield failed("bundle", str(error))
        return
    yield ok("bundle", f"{manifest.bundle_id} gives the learner's actions here")
    period_ms = 1000 * manifest.task.command_dt_s
    text = f"{milliseconds:.1f} ms of a period of {period_ms:.1f} ms"
    if milliseconds > period_ms:
        yield failed("policy", text, "use a faster computer or a smaller policy")
    elif milliseconds > _BIG_SHARE * period_ms:
        yield warning("policy", text, "end other programs, or use a smaller policy")
    else:
        yield ok("policy", text)
    yield _names(manifest, robot)
    if manifest.robot.urdf_sha256 != sha256(robot.urdf_path):
        yield warning(
            "robot files",
            f"{robot.urdf_path.name} is not the one of the training: limits or lengths may differ",
            "use the files of the training, or export the policy again",
        )
    else:
        yield ok("robot files", "those of the training, with its joint limits")


def _names(manifest: BundleManifest, robot: Robot) -> Finding:
    differ = sorted(set(manifest.robot.joint_names) ^ set(robot.joint_names))
    if differ or tuple(manifest.robot.joint_names) != robot.joint_names:
        what = ", ".join(differ) or "their order"
        return failed(
            "joint names",
            f"the bundle is for {manifest.robot.name}, this robot is {robot.name}; they differ in "
            f"{what}",
            "use a bundle for this robot, or set the parameter `robot`",
        )
    return ok("joint names", f"the {len(robot.joint_names)} joints of the bundle")


def _step_ms(folder: Path) -> float:
    """Time of a step of the policy, the slowest but one of its test vectors."""
    bundle = load_bundle(folder)
    vectors = read_vectors(folder / VECTORS_FILE)
    memory, spent = vectors[MEMORY_IN], []
    for step in range(len(vectors[ACTION])):
        seen = {spec.name: vectors[spec.name][step] for spec in bundle.manifest.groups}
        begin_s = time.perf_counter()
        run_step(bundle, seen, memory)
        spent.append(time.perf_counter() - begin_s)
    return 1000 * float(np.sort(spent)[-2])


def calibration(deployment: Deployment, now: datetime | None = None) -> Iterator[Finding]:
    """Where the camera is: present, of this robot, young enough, known to the policy."""
    name, given = "calibration", deployment.parameters["camera"]
    path = str(given.get("calibration.extrinsics", ""))
    if deployment.manifest is not None and deployment.manifest.image is None:
        yield ok(name, "the policy reads no images")
        return
    if not path:
        yield unknown(name, "none named", "give --calibration, the folder of `dexgrasp calibrate`")
        return
    now = now or datetime.now(timezone.utc)
    try:
        camera = place_camera(given, deployment.robot, deployment.manifest, now)
    except ConfigError as error:
        yield failed(name, str(error))
        return
    assert camera is not None
    age_days = read_extrinsics(Path(path).expanduser()).age_s(now) / 86400
    most_days = float(given.get("calibration.max_age_days", PlaceConfig().max_age_days))
    text = f"{path}: {age_days:.1f} days old, at most {most_days:g}"
    if camera.warning:
        yield warning(name, f"{text}; {camera.warning}", "allowed by camera.calibration")
    elif age_days > _OLD_SHARE * most_days:
        yield warning(name, text, "calibrate again soon (docs/calibration.md)")
    elif deployment.manifest is None:
        yield ok(name, f"{text}; not compared, as no bundle is named")
    else:
        yield ok(name, f"{text}; where the policy was trained with it")
