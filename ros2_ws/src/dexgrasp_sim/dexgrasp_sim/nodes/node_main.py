"""A `main` for nodes that ends cleanly on every kind of stop."""

import os
import signal
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node

from dexgrasp_sim.bringup import PARENT_VARIABLE
from dexgrasp_sim.config import ConfigError

_PARENT_CHECK_S = 1.0
_CONFIG_ERROR_EXIT = 2

SomeNode = TypeVar("SomeNode", bound=Node)


def spin(node: Node, executor: Executor) -> None:
    """Runs callbacks until the node is told to stop."""
    executor.spin()


def run_node(
    factory: Callable[[], SomeNode],
    args: list[str] | None = None,
    body: Callable[[SomeNode, Executor], None] = spin,
    threads: int = 1,
) -> int:
    """Runs a node until its body returns, or SIGINT, SIGTERM or a shutdown of its context.

    A signal may arrive while the executor builds its wait set, which raises RCLError, or a second
    time while the node is destroyed; both count as a clean end.

    Args:
        factory: Builds the node; called after rclpy.init.
        args: Command line, None for sys.argv.
        body: Work of the process; it must keep the executor spinning.
        threads: Number of callbacks that may run in parallel.

    Returns:
        Exit code: 0, 2 after a ConfigError (its message is logged), or that of a SystemExit.
    """
    rclpy.init(args=args)
    node = executor = None
    try:
        node = factory()
        executor = (
            SingleThreadedExecutor()
            if threads == 1
            else MultiThreadedExecutor(num_threads=threads)
        )
        executor.add_node(node)
        _end_with_parent(node)
        body(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ConfigError as error:
        get_logger("dexgrasp").error(str(error))
        return _CONFIG_ERROR_EXIT
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except rclpy_implementation.RCLError:
        if rclpy.ok():
            raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if executor is not None:
            executor.shutdown(timeout_sec=2.0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _end_with_parent(node: Node) -> None:
    """Ends the node when the `dexgrasp up` that started it has ended, even if it was killed."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return

    def check() -> None:
        if os.getppid() != int(parent):
            node.get_logger().error("the process that started this node is gone: stopping")
            # an executor with several threads would swallow a SystemExit
            os.kill(os.getpid(), signal.SIGTERM)

    node.create_timer(_PARENT_CHECK_S, check)
