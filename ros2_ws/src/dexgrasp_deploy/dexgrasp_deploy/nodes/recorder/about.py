"""Where a recording comes from: bundle, commit, parameters of the nodes, calibration."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

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
        calibration: A file; "": none.
        """
        self._node = node
        self._clients = {name: AsyncParameterClient(node, name) for name in nodes}
        self._parameters: dict[str, dict[str, Any]] = {}
        self._calibration = {calibration: _text_of(calibration)} if calibration else {}
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


def _text_of(path: str) -> str:
    """Raises OSError where it cannot be read."""
    return Path(path).expanduser().read_text(encoding="utf-8")
