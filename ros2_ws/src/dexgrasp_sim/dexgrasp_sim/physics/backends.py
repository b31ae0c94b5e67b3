"""The physics backends and their selection; no other module names them."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dexgrasp_sim.config import ConfigError

if TYPE_CHECKING:
    from dexgrasp_sim.physics.engine import PhysicsEngine
    from dexgrasp_sim.physics.scene import Scene


@dataclass(frozen=True)
class Backend:
    """Where a backend is and what it needs.

    Attributes:
        module: Module of the engine class; imported only when an engine is made.
        engine: Name of the class or function that takes a scene, a device and a number of
            threads.
        package: Distribution that it needs besides this one.
        devices: Types of the devices that it supports.
        remedy: How to get the package.
    """

    module: str
    engine: str
    package: str
    devices: tuple[str, ...]
    remedy: str


BACKENDS = {
    "mujoco": Backend(
        "dexgrasp_sim.physics.mujoco.batch",
        "MujocoBatch",
        "mujoco",
        ("cpu",),
        "run `make setup`",
    ),
    "mujoco_warp": Backend(
        "dexgrasp_sim.physics.mujoco_warp.engine",
        "MujocoWarpEngine",
        "mujoco-warp",
        ("cpu", "cuda"),
        "run `.venv/bin/pip install -c scripts/lock/python.txt -e '.[warp]'`",
    ),
    "isaaclab": Backend(
        "dexgrasp_sim.physics.isaaclab.start",
        "start_engine",
        "isaaclab",
        ("cpu", "cuda"),
        "run `make setup-isaac`",
    ),
}
"""Backends by their name in `physics.backend`."""


def make_engine(
    scene: "Scene", device: torch.device | str = "cpu", threads: int = 1
) -> "PhysicsEngine":
    """The engine of the backend that `scene.physics.backend` names.

    Args:
        scene: What to simulate.
        device: Where the engine's tensors live.
        threads: CPU threads for physics and images, where these run on the CPU.

    Raises:
        ConfigError: The backend is not installed, or does not compute on this device.
    """
    name, device = scene.physics.backend, torch.device(device)
    backend = BACKENDS[name]
    if device.type not in backend.devices:
        raise ConfigError(
            f"physics.backend = {name!r} computes on {' or '.join(backend.devices)}, not on "
            f"{str(device)!r}; change one of them"
        )
    try:
        module = importlib.import_module(backend.module)
    except ImportError as error:
        raise ConfigError(
            f"physics.backend = {name!r} cannot be imported ({error}); {backend.remedy}"
        ) from None
    return getattr(module, backend.engine)(scene, device, threads)
