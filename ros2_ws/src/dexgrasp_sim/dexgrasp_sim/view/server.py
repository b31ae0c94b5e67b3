"""The web server of a page, and what every page has: ground, light and where one looks from."""

import contextlib
import errno
import io
import logging
import socket

import numpy as np
import viser

from dexgrasp_sim.config import ConfigError

EYE_FROM_AIM_M = np.array([-1.5, -0.97, 0.63])
_FIELD_OF_VIEW_RAD = 0.75


def start_server(host: str, port: int) -> viser.ViserServer:
    """Starts viser's server in its own thread.

    Args:
        host: Address to listen on; 0.0.0.0 for access from other machines.
        port: If it is taken, the next free one.

    Raises:
        ConfigError: The address does not belong to this machine, or the port is not permitted.
    """
    # no traceback when a browser opens a connection and closes it again
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    _check_address(host, port)
    with contextlib.redirect_stdout(io.StringIO()):  # its banner
        return viser.ViserServer(host, port, verbose=False)


def stop_server(server: viser.ViserServer) -> None:
    """Ends it without its words; idempotent."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.stop()


def page_url(server: viser.ViserServer) -> str:
    """Where the page is."""
    host = server.get_host()
    return f"http://{'localhost' if host == '0.0.0.0' else host}:{server.get_port()}"


def furnish(server: viser.ViserServer, aim_m: np.ndarray) -> None:
    """Adds ground and light, and lets the page look at a point [3] m, base frame."""
    scene = server.scene
    scene.set_up_direction("+z")
    scene.configure_environment_map("studio", environment_intensity=0.25)
    scene.add_grid(
        "/ground",
        width=4.0,
        height=4.0,
        cell_size=0.1,
        section_size=0.5,
        plane_color=(235, 236, 238),
        plane_opacity=1.0,
        shadow_opacity=0.2,
    )
    camera = server.initial_camera
    camera.position = aim_m + EYE_FROM_AIM_M
    camera.look_at = aim_m
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
