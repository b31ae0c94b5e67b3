"""The nodes of a deployment; the launch files and `dexgrasp up` start this one list."""

from collections.abc import Mapping
from pathlib import Path

from dexgrasp_sim.bringup import NodeSpec
from dexgrasp_sim.config import ConfigError

MODES = ("mock", "sim", "hardware")
PACKAGE = "dexgrasp_deploy"
EPISODE_NODE = "episode_node"


def deploy_nodes(
    mode: str,
    bundle: str | Path,
    drivers: Mapping[str, str] | None = None,
    seed: int = 0,
    shadow: bool = False,
    record: str | Path | None = None,
) -> list[NodeSpec]:
    """Robot driver, camera, policy and recorder; the modes differ only in the drivers.

    Args:
        mode: "mock", "sim" or "hardware".
        bundle: Policy bundle folder.
        drivers: Driver by kind (`arm`, `hand`, `camera`) for the mode "hardware".
        seed: Seed of the simulated world.
        shadow: Everything is computed, and no command leaves.
        record: Folder for recordings; "" or None: none. On hardware a recorder runs also then,
            for its black box.

    Raises:
        ConfigError: The mode does not exist, or a driver of the hardware is not named.
    """
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    chosen = dict.fromkeys(("arm", "hand", "camera"), mode)
    if mode == "hardware":
        chosen = dict(drivers or {})
        if missing := [kind for kind in ("arm", "hand", "camera") if not chosen.get(kind)]:
            names = ", ".join(f"{kind}.driver" for kind in missing)
            raise ConfigError(f"hardware needs {names}; give `module:Class` of your drivers")
    folder = str(Path(bundle).resolve())
    robot = {"bundle": folder, "seed": seed}
    robot |= {f"{kind}.driver": chosen[kind] for kind in ("arm", "hand")}
    camera = {"bundle": folder, "camera.driver": chosen["camera"]}
    policy = {"bundle": folder, "autostart": mode != "hardware", "shadow": shadow}
    nodes = [
        NodeSpec(PACKAGE, "robot_driver_node", "robot_driver_node", robot),
        NodeSpec(PACKAGE, "camera_node", "camera_node", camera),
        NodeSpec(PACKAGE, "policy_node", "policy_node", policy),
    ]
    if record or mode == "hardware":
        folder = {"folder": str(Path(record).expanduser().resolve())} if record else {}
        recorder = {**folder, "record": bool(record)}
        nodes.append(NodeSpec(PACKAGE, "recorder_node", "recorder_node", recorder))
    return nodes


def episode_node(mode: str, bundle: str | Path, episodes: int) -> NodeSpec:
    """The node that runs episodes and then ends; in simulation it also judges them."""
    parameters = {
        "bundle": str(Path(bundle).resolve()),
        "episodes": episodes,
        "simulated": mode == "sim",
    }
    return NodeSpec(PACKAGE, EPISODE_NODE, EPISODE_NODE, parameters)
