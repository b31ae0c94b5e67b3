"""Services of the policy node: load another bundle; send the robot home, hold, open, release."""

from collections.abc import Callable
from pathlib import Path

from rclpy.node import Node
from std_srvs.srv import Trigger

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import State, UnfitInput
from dexgrasp_learner.storage.bundle import MANIFEST_FILE, BundleError
from dexgrasp_msgs.srv import LoadPolicy
from dexgrasp_sim.config import ConfigError


class PolicyServices:
    """`policy/load`, and Trigger services on an active control loop.

    `policy/home` puts down what the hand holds and goes home; `policy/open_hand` opens the hand,
    which ends a hand-over; `policy/hold` stops and holds; `policy/release` stops commanding after
    an episode and clears a fault. They answer when the motion begins; `policy/status` tells when
    it has ended.
    """

    def __init__(
        self,
        node: Node,
        loop: Callable[[], ControlLoop | None],
        active_loop: Callable[[], ControlLoop | None],
        load: Callable[[str], None],
    ) -> None:
        """Starts the services.

        Args:
            node: Owner.
            loop: Returns the control loop; None while no bundle is loaded.
            active_loop: The same; None while the node is not active.
            load: Replaces the policy by that of a bundle folder; may raise ConfigError.
        """
        self._node, self._loop, self._active_loop, self._load = node, loop, active_loop, load
        node.create_service(LoadPolicy, "policy/load", self._on_load)
        node.create_service(Trigger, "policy/release", self._on_release)
        self._serve("policy/home", ControlLoop.go_home)
        self._serve("policy/open_hand", ControlLoop.open_hand)
        self._serve("policy/hold", ControlLoop.cancel)

    def _serve(self, name: str, action: Callable[[ControlLoop], None]) -> None:
        """A service that does something with the active loop."""

        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            loop = self._active_loop()
            if loop is None:
                response.message = "no policy is active"
                return response
            try:
                action(loop)
                response.success, response.message = True, loop.episode.why
            except UnfitInput as unfit:
                response.message = f"refused: {unfit.reason.value}: {unfit}"
                self._node.get_logger().error(f"{name}: {response.message}")
            return response

        self._node.create_service(Trigger, name, answer)

    def _on_load(
        self, request: LoadPolicy.Request, response: LoadPolicy.Response
    ) -> LoadPolicy.Response:
        """Loads a bundle unless the robot moves or is in a fault."""
        loop = self._loop()
        if loop is not None and (loop.episode.active or loop.episode.state is State.FAULT):
            response.error_code = LoadPolicy.Response.BUSY
            what = "an episode is running; cancel" if loop.episode.active else "in FAULT; release"
            response.message = f"{what} it first"
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
        """Stops commanding after an episode, and clears a fault whose cause is gone."""
        loop = self._loop()
        if loop is None or loop.episode.active:
            response.message = "no policy is loaded" if loop is None else "an episode is running"
            return response
        try:
            loop.release()
            response.success = True
        except UnfitInput as unfit:
            response.message = f"refused: {unfit.reason.value}: {unfit}"
        return response
