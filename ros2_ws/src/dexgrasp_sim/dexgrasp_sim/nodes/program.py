"""Console scripts of nodes, which end quietly also while they still import their modules.

Importing torch and ROS takes seconds. A Ctrl-C in `ros2 launch` reaches every node, and one that
is still importing would print a traceback from somewhere in a library.
"""

import os
import signal
from collections.abc import Callable
from importlib import import_module
from types import FrameType

_INTERRUPTED = 130


def node_program(module: str) -> Callable[[], int]:
    """The console script of a node.

    Args:
        module: Has `main() -> int`; it is imported when the script runs.
    """

    def program() -> int:
        signal.signal(signal.SIGINT, _end)
        return import_module(module).main()  # handles its signals itself, see `run_node`

    return program


def _end(number: int, frame: FrameType | None) -> None:
    """Nothing has begun that needs an orderly end; an exception could be swallowed on its way."""
    os._exit(_INTERRUPTED)
