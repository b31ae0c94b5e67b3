"""A web page that shows one environment, and the loop that updates it."""

import contextlib
import errno
import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np
import viser

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.view.panel import Panel
from dexgrasp_sim.view.source import Source
from dexgrasp_sim.view.viser_scene import SceneView

_EYE_FROM_SPAWN_M = np.array([-1.35, -0.92, 0.78])
_AIM_FROM_SPAWN_M = np.array([0.15, 0.05, 0.15])
_FIELD_OF_VIEW_RAD = 0.75


class Viewer:
    """Serves the page until it is closed; a context manager."""

    def __init__(
        self,
        source: Source,
        config: GraspConfig,
        host: str = "127.0.0.1",
        port: int = 8080,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the web server in its own thread.

        Args:
            source: What to show; closed with the viewer.
            config: The source's task.
            host: Address to listen on; 0.0.0.0 for access from other machines.
            port: If it is taken, the next free one.
            clock: Monotonic seconds.

        Raises:
            ConfigError: The address does not belong to this machine, or the port is not permitted.
        """
        self._source, self._clock = source, clock
        # no traceback when a browser opens a connection and closes it again
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        _check_address(host, port)
        with contextlib.redirect_stdout(io.StringIO()):  # its banner
            self.server = viser.ViserServer(host, port, verbose=False)
        self.scene = SceneView(self.server.scene, config.load_robot(), config)
        self.panel = Panel(self.server.gui, source, config)
        self._look_at_table(config)
        self._shown: tuple[int, float] | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        host = self.server.get_host()
        return f"http://{'localhost' if host == '0.0.0.0' else host}:{self.server.get_port()}"

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, stop: threading.Event) -> None:
        """Shows moments at the source's pace until `stop` is set or the source has ended."""
        due_s = self._clock()
        while not stop.is_set() and not self._source.has_ended:
            self.tick()
            # delays are not caught up: the page shows real time or slower, never faster
            due_s = max(due_s + self._source.period_s, self._clock())
            stop.wait(due_s - self._clock())

    def tick(self) -> None:
        """Carries out the user's requests, advances unless paused, and shows the result."""
        wishes, source = self.panel.wishes, self._source
        if wishes.env is not None:
            chosen, wishes.env = wishes.env, None
            source.select(chosen)
        if wishes.restart:
            wishes.restart = False
            source.restart()
            self._shown = None
        elif not wishes.is_paused or wishes.step:
            wishes.step = False
            source.advance()
        moment = source.moment()
        if moment is not None and (moment.env, moment.time_s) != self._shown:
            self._shown = moment.env, moment.time_s
            with self.server.atomic():
                self.scene.show(moment)
            self.panel.show(moment)

    def close(self) -> None:
        """Ends the web server and closes the source; idempotent."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()
        self._source.close()

    def _look_at_table(self, config: GraspConfig) -> None:
        spawn = np.array([*config.spawn.center_m, config.table.top_m])
        camera = self.server.initial_camera
        camera.position = spawn + _EYE_FROM_SPAWN_M
        camera.look_at = spawn + _AIM_FROM_SPAWN_M
        camera.fov = _FIELD_OF_VIEW_RAD


def _check_address(host: str, port: int) -> None:
    """Raises ConfigError if viser's thread could not listen, as the caller would wait for ever."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # there it takes the next port
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); give another address"
            ) from None
