"""`dexgrasp view --robot`: a page with a robot, live from the topics of its nodes.

It is not a node of a launch plan: it may run on any machine that reaches the robot's ROS domain,
start before the robot does, and outlive it.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from rclpy.logging import get_logger

from dexgrasp_sim.arguments import Parser, whole
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.robot_view.page import RobotPage
from dexgrasp_sim.nodes.robot_view.search import robot_graph
from dexgrasp_sim.ros_settings import LAST_DOMAIN
from dexgrasp_sim.stop_signals import stop_signals
from dexgrasp_sim.view.server import page_url, start_server, stop_server

_PERIOD_S = 1 / 15


def serve(page: RobotPage, domain: int | None, namespace: str) -> None:
    """Shows one robot after the other, until a stop signal; says on stderr what it waits for."""
    told = ""

    def tell(words: str) -> None:
        nonlocal told
        if words != told:
            told = words
            print(words, file=sys.stderr, flush=True)

    def waiting(what: str) -> None:
        page.wait_for(what)
        tell(f"waiting for {what}")

    while True:
        with robot_graph(domain, namespace, waiting) as graph:
            assert graph.robot is not None
            tell(f"showing {graph.robot.name} in ROS domain {graph.domain}")
            while graph.is_alive:
                if page.wishes.stop:
                    page.wishes.stop = False
                    graph.stop()
                page.show(graph)
                graph.spin(_PERIOD_S)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; the arguments are those of `dexgrasp view --robot`."""
    torch.set_num_threads(1)
    options = _parse(args)
    try:
        server = start_server(options.host, options.port)
    except ConfigError as error:
        get_logger("dexgrasp").error(str(error))
        return 2
    try:
        with stop_signals():
            print(f"robot: open {page_url(server)} in a browser; Ctrl-C ends", flush=True)
            serve(RobotPage(server), options.domain, options.namespace)
    except KeyboardInterrupt:
        pass
    finally:
        stop_server(server)
    return 0


def _parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="dexgrasp view --robot")
    parser.add_argument("--host", default="127.0.0.1", help="address of the page")
    parser.add_argument("--port", type=whole(0, 65535), default=8080, help="port of the page")
    parser.add_argument("--domain", type=whole(0, LAST_DOMAIN), help="ROS domain of the robot")
    parser.add_argument("--namespace", default="", help="namespace of the robot's nodes")
    return parser.parse_args(args)


if __name__ == "__main__":
    sys.exit(main())
