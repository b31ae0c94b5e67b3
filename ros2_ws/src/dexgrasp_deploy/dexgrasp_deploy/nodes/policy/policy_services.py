"""Services of the policy node: load another bundle, release the robot."""

from collections.abc import Callable
from pathlib import Path

from rclpy.node import Node
from std_srvs.srv import Trigger

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_learner.storage.bundle import MANIFEST_FILE, BundleError
from dexgrasp_msgs.srv import LoadPolicy
from dexgrasp_sim.config import ConfigError


class PolicyServices:
    """`policy/load` and `policy/release`."""

    def __init__(
        self, node: Node, loop: Callable[[], ControlLoop | None], load: Callable[[str], None]
    ) -> None:
        """Starts the services.

        Args:
            node: Owner.
            loop: Returns the control loop; None while no bundle is loaded.
            load: Replaces the policy by that of a bundle folder; may raise ConfigError.
        """
        self._loop = loop
        self._load = load
        node.create_service(LoadPolicy, "policy/load", self._on_load)
        node.create_service(Trigger, "policy/release", self._on_release)

    def _on_load(
        self, request: LoadPolicy.Request, response: LoadPolicy.Response
    ) -> LoadPolicy.Response:
        """Loads a bundle unless an episode is running."""
        loop = self._loop()
        if loop is not None and loop.episode.active:
            response.error_code = LoadPolicy.Response.BUSY
            response.message = "an episode is running; cancel it first"
            return response
        try:
            self._load(request.bundle)
        except BundleError as error:
            found = (Path(request.bundle) / MANIFEST_FILE).is_file()
            code = LoadPolicy.Response.INVALID if found else LoadPolicy.Response.NOT_FOUND
            response.error_code, response.message = code, str(error)
            return response
        except ConfigError as error:
            response.error_code = LoadPolicy.Response.INCOMPATIBLE
            response.message = str(error)
            return response
        response.success, response.message = True, f"loaded {request.bundle}"
        return response

    def _on_release(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Stops commanding after an episode, and clears a fault."""
        loop = self._loop()
        if loop is None or loop.episode.active:
            response.message = "no policy is loaded" if loop is None else "an episode is running"
            return response
        loop.release()
        response.success = True
        return response
