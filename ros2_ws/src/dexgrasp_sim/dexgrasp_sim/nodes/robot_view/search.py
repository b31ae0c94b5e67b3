"""Finds the robot to show: in a given ROS domain, or in any that is in use on this host."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dexgrasp_sim.bringup import domains_in_use
from dexgrasp_sim.nodes.robot_view.graph import RobotGraph

_LOOK_S = 4.0
"""Discovery and a message may take this long."""
_SPIN_S = 0.1
_PAUSE_S = 0.5


@contextmanager
def robot_graph(
    domain: int | None, namespace: str, waiting: Callable[[str], None]
) -> Iterator[RobotGraph]:
    """Waits for a robot and yields the graph that reads it.

    Args:
        domain: Of the robot; None: the first domain in use on this host that has a robot.
        namespace: Of the robot's nodes.
        waiting: Is called again and again with what is waited for.
    """
    while True:
        for candidate in [domain] if domain is not None else domains_in_use():
            with RobotGraph(candidate, namespace) as graph:
                look_s = None if domain is not None else time.monotonic() + _LOOK_S
                while not graph.is_alive and (look_s is None or time.monotonic() < look_s):
                    waiting(_missing(graph, candidate, namespace))
                    graph.spin(_SPIN_S)
                if graph.is_alive:
                    yield graph
                    return
        waiting("a robot in one of this host's ROS domains; --domain names one")
        time.sleep(_PAUSE_S)


def _missing(graph: RobotGraph, domain: int, namespace: str) -> str:
    topics = graph.missing or "new joint_states"
    where = f" and namespace {namespace}" if namespace else ""
    return f"{topics} in ROS domain {domain}{where}"
