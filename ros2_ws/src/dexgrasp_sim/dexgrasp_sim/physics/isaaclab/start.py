"""The Isaac Lab engine, in this process or in one of an interpreter that has Isaac Lab."""

import importlib.util
from importlib import metadata
from pathlib import Path

import torch

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.physics.isaaclab.engine_process import EngineProcess
from dexgrasp_sim.physics.scene import Scene

_PACKAGE = "isaaclab"
_INTERPRETER = Path(".venv-isaac/bin/python")


def has_isaaclab() -> bool:
    """Whether this interpreter has Isaac Lab."""
    return importlib.util.find_spec(_PACKAGE) is not None


def isaac_python(given: str = "") -> str:
    """An interpreter with Isaac Lab.

    Args:
        given: Its path; "": that of `make setup-isaac`.

    Raises:
        ConfigError: There is none.
    """
    folders = Path(__file__).absolute().parents
    candidates = [Path(given)] if given else [folder / _INTERPRETER for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    raise ConfigError(
        f"physics.backend = 'isaaclab' needs an environment of its own, and there is no "
        f"{given or _INTERPRETER}; run `make setup-isaac`, or name its Python in "
        "physics.isaaclab.python"
    )


def installed_version() -> str:
    """Version of Isaac Lab where `start_engine` would find it; errors as for `isaac_python`."""
    if has_isaaclab():
        return metadata.version(_PACKAGE)
    library = Path(isaac_python()).parents[1] / "lib"
    folders = [str(folder) for folder in library.glob("python3*/site-packages")]
    found = metadata.distributions(name=_PACKAGE, path=folders)
    return next((each.version for each in found), "unknown")


def start_engine(
    scene: Scene, device: torch.device | str = "cpu", threads: int = 1
) -> PhysicsEngine:
    """An engine in this process if it has Isaac Lab, else in another process.

    Args:
        scene: What to simulate.
        device: Where its tensors live; a process of another interpreter shares those of the CPU
            only.
        threads: Not used.

    Raises:
        ConfigError: There is no Isaac Lab, or it cannot do what is asked.
    """
    if has_isaaclab():
        from dexgrasp_sim.physics.isaaclab.engine import IsaacLabEngine

        return IsaacLabEngine(scene, device, threads)
    python = isaac_python(scene.physics.isaaclab.python)
    if torch.device(device).type != "cpu":
        raise ConfigError(
            f"physics.backend = 'isaaclab' on {str(device)!r} runs in workers with Isaac Lab; "
            f"set simulators.python: {python}"
        )
    return EngineProcess(scene, python)
