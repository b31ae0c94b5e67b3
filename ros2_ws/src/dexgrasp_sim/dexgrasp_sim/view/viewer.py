"""A web page that shows one environment, and the loop that updates it."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np

from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.view.panel import Panel
from dexgrasp_sim.view.server import furnish, page_url, start_server, stop_server
from dexgrasp_sim.view.source import Source
from dexgrasp_sim.view.viser_scene import SceneView

_AIM_FROM_SPAWN_M = np.array([0.15, 0.05, 0.15])


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
        self.server = start_server(host, port)
        spawn = np.array([*config.spawn.center_m, config.table.top_m])
        furnish(self.server, spawn + _AIM_FROM_SPAWN_M)
        self.scene = SceneView(self.server.scene, config.load_robot(), config)
        self.panel = Panel(self.server.gui, source, config)
        self._shown: tuple[int, float] | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return page_url(self.server)

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
        stop_server(self.server)
        self._source.close()
