"""Where a recording comes from: bundle, commit, parameters of the nodes, calibration."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.version import version_line


class About:
    """Collects what a recording must say about its origin; nothing here waits.

    Attributes:
        bundle_id: Of the policy; set by the owner.
        changed: Whether `text` has changed since it was last called.
    """

    def __init__(self, node: Node, nodes: Sequence[str], calibration: str) -> None:
        """Args:
        node: The owner.
        nodes: Names of the nodes whose parameters are asked for.
        calibration: A file, or a folder whose YAML files are meant; "": none.

        Raises:
            ConfigError: The calibration cannot be read.
        """
        self._node = node
        self._clients = {name: AsyncParameterClient(node, name) for name in nodes}
        self._parameters: dict[str, dict[str, Any]] = {}
        self._calibration = _texts(Path(calibration).expanduser()) if calibration else {}
        self.bundle_id, self.changed = "", True

    def ask(self) -> None:
        """Asks nodes that have appeared for their parameters, once; called by a timer."""
        for name, client in [*self._clients.items()]:
            if client.services_are_ready():
                del self._clients[name]
                self._ask(name, client)

    def _ask(self, name: str, client: AsyncParameterClient) -> None:
        def on_names(future: Any) -> None:
            names = future.result().result.names
            client.get_parameters(names).add_done_callback(
                lambda answer: self._set(name, names, answer.result().values)
            )

        client.list_parameters().add_done_callback(on_names)

    def _set(self, name: str, names: Sequence[str], values: Sequence[Any]) -> None:
        pairs = zip(names, map(parameter_value_to_python, values), strict=True)
        self._parameters[name] = dict(pairs)
        self.changed = True

    def text(self) -> str:
        """JSON: `bundle_id`, `version` with the commit, `parameters` by node, `calibration`."""
        self.changed = False
        content = {
            "bundle_id": self.bundle_id,
            "version": version_line(),
            "parameters": self._parameters,
            "calibration": self._calibration,
        }
        return json.dumps(content, default=list)


def _texts(path: Path) -> dict[str, str]:
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"calibration = {str(path)!r}: there is no YAML file in this folder")
    try:
        return {str(file): file.read_text(encoding="utf-8") for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"calibration = {str(path)!r}: {error}") from None
