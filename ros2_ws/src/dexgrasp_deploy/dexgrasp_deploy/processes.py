"""The nodes of a deployment; the launch files and `dexgrasp up` start this one list."""

from collections.abc import Mapping
from pathlib import Path

from dexgrasp_deploy.drivers.registry import rectifies
from dexgrasp_sim.bringup import NodeSpec
from dexgrasp_sim.config import ConfigError

MODES = ("mock", "sim", "hardware")
PACKAGE = "dexgrasp_deploy"
EPISODE_NODE = "episode_node"
DISPLAY_NODE = "display_node"
EXTRINSICS_FILE = "extrinsics.yaml"
_NO_CALIBRATION = "none"


def deploy_nodes(
    mode: str,
    bundle: str | Path,
    drivers: Mapping[str, str] | None = None,
    seed: int = 0,
    shadow: bool = False,
    record: str | Path | None = None,
    calibration: str | Path | None = None,
) -> list[NodeSpec]:
    """Robot driver, camera, policy, display and recorder; the modes differ only in the drivers.

    Args:
        mode: "mock", "sim" or "hardware".
        bundle: Policy bundle folder.
        drivers: Driver by kind (`arm`, `hand`, `camera`) for the mode "hardware".
        seed: Seed of the simulated world.
        shadow: Everything is computed, and no command leaves.
        record: Folder for recordings; "" or None: none. On hardware a recorder runs also then,
            for its black box.
        calibration: Folder that `dexgrasp calibrate` has written, with extrinsics.yaml and, for
            the drivers of this package that rectify, left.yaml and right.yaml. Hardware needs it,
            or `none` for a camera that stands exactly where it stood in training.

    Raises:
        ConfigError: The mode does not exist, a driver of the hardware is not named, or its camera
            is not calibrated.
    """
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    chosen = dict.fromkeys(("arm", "hand", "camera"), mode)
    if mode == "hardware":
        chosen = dict(drivers or {})
        if missing := [kind for kind in ("arm", "hand", "camera") if not chosen.get(kind)]:
            names = ", ".join(f"{kind}.driver" for kind in missing)
            raise ConfigError(f"hardware needs {names}; `dexgrasp drivers` lists what they may be")
    folder = str(Path(bundle).resolve())
    robot = {"bundle": folder, "seed": seed}
    robot |= {f"{kind}.driver": chosen[kind] for kind in ("arm", "hand")}
    camera = {"bundle": folder, "camera.driver": chosen["camera"]}
    camera |= calibration_parameters(mode, chosen["camera"], str(calibration or ""))
    policy = {"bundle": folder, "autostart": mode != "hardware", "shadow": shadow}
    extrinsics = camera.get("camera.calibration.extrinsics", "")
    display = {"bundle": folder, "shadow": shadow, "extrinsics": extrinsics}
    nodes = [
        NodeSpec(PACKAGE, "robot_driver_node", "robot_driver_node", robot),
        NodeSpec(PACKAGE, "camera_node", "camera_node", camera),
        NodeSpec(PACKAGE, "policy_node", "policy_node", policy),
        NodeSpec(PACKAGE, DISPLAY_NODE, DISPLAY_NODE, display),
    ]
    if record or mode == "hardware":
        folder = {"folder": str(Path(record).expanduser().resolve())} if record else {}
        recorder = {**folder, "record": bool(record)}
        if extrinsics:
            recorder["calibration"] = str(Path(extrinsics).parent)
        nodes.append(NodeSpec(PACKAGE, "recorder_node", "recorder_node", recorder))
    return nodes


def calibration_parameters(mode: str, driver: str, folder: str) -> dict[str, str]:
    """Parameters of `camera_node` for the files of a calibration.

    Args:
        mode: One of MODES.
        driver: Of the camera.
        folder: See `deploy_nodes`; "" for none.

    Raises:
        ConfigError: The folder holds no calibration, or hardware has none.
    """
    if folder == _NO_CALIBRATION or (not folder and mode != "hardware"):
        return {}
    if not folder:
        raise ConfigError(
            "hardware needs the calibration of its camera: calibration:=FOLDER that `dexgrasp "
            f"calibrate` has written, or calibration:={_NO_CALIBRATION} for a camera that stands "
            "exactly where it stood in training"
        )
    place = Path(folder).expanduser().resolve()
    if not (place / EXTRINSICS_FILE).is_file():
        raise ConfigError(
            f"calibration {folder}: no {EXTRINSICS_FILE} here; make it with `dexgrasp calibrate "
            "hand-eye`"
        )
    files = {"extrinsics": place / EXTRINSICS_FILE}
    if rectifies(driver):
        files |= {side: place / f"{side}.yaml" for side in ("left", "right")}
    return {
        f"camera.calibration.{key}": str(file) for key, file in files.items() if file.is_file()
    }


def episode_node(
    mode: str, bundle: str | Path, episodes: int, print_json: bool = False
) -> NodeSpec:
    """The node that runs episodes and then ends; in simulation it also judges them."""
    parameters = {
        "bundle": str(Path(bundle).resolve()),
        "episodes": episodes,
        "simulated": mode == "sim",
        "print_json": print_json,
    }
    return NodeSpec(PACKAGE, EPISODE_NODE, EPISODE_NODE, parameters)
