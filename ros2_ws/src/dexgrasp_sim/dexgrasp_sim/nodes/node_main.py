"""A `main` for nodes that ends cleanly on every kind of stop."""

import gc
import os
import re
import signal
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
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
from dexgrasp_sim.stop_signals import ignore_stop_signals, stop_signals
from dexgrasp_sim.streams import lasting_streams

_CHECK_S = 1.0
_CONFIG_ERROR_EXIT = 2
_SOURCE_LINE = re.compile(r",? at /\S+:\d+")
"""Where in the source of ROS an error was found; rcl adds it to its messages."""
_REFUSALS = (
    rclpy_implementation.RCLError,
    rclpy_implementation.UnknownROSArgsError,
    ParameterException,
)
_NO_TYPE = "PARAMETER_NOT_SET"
"""In the message of the ValueError for a parameter that is an empty list."""

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
    """Runs a node until its body returns, or a stop signal or a shutdown of its context.

    The body gets a KeyboardInterrupt from the first of SIGINT, SIGTERM and SIGHUP, and another one
    from a SIGINT at least a second later. A signal may arrive while the executor builds its wait
    set, which raises RCLError, while a message is converted, which pybind11 turns into a
    RuntimeError, or again while the node is destroyed; all count as a clean end.

    Args:
        factory: Builds the node; called after rclpy.init.
        args: Command line, None for sys.argv.
        body: Work of the process; it must keep the executor spinning.
        threads: Number of callbacks that may run in parallel.

    Returns:
        Exit code: 0, or that of a SystemExit, or 2 for a wrong config, parameter file, argument or
        setting of ROS, which is logged on one line.
    """
    with stop_signals(), lasting_streams():
        return _run(factory, args, body, threads)


def _run(
    factory: Callable[[], SomeNode],
    args: list[str] | None,
    body: Callable[[SomeNode, Executor], None],
    threads: int,
) -> int:
    node = executor = None
    try:
        node = _build(factory, args)
        executor = (
            SingleThreadedExecutor()
            if threads == 1
            else MultiThreadedExecutor(num_threads=threads)
        )
        executor.add_node(node)
        _look_up_every_second(node)
        body(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ConfigError as error:
        get_logger("dexgrasp").error(str(error))
        return _CONFIG_ERROR_EXIT
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except RuntimeError:  # RCLError is one
        if rclpy.ok():
            raise
    finally:
        ignore_stop_signals()
        if executor is not None:
            executor.shutdown(timeout_sec=2.0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        ignore_stop_signals()  # rclpy has put back what it found
        gc.freeze()  # else freeing all modules takes a second
    return 0


def _build(factory: Callable[[], SomeNode], args: list[str] | None) -> SomeNode:
    """The node, in an initialized context.

    Raises:
        ConfigError: A command line, parameter file, parameter or setting that ROS refuses.
    """
    initialized = False
    try:
        rclpy.init(args=args)  # its handlers of SIGINT and SIGTERM also call those of Python
        initialized = True
        return factory()
    except (*_REFUSALS, ValueError) as error:
        if initialized and not rclpy.ok():
            raise KeyboardInterrupt from None  # a signal has shut the context down
        text = " ".join(_SOURCE_LINE.sub("", str(error)).split())
        if isinstance(error, _REFUSALS) or _NO_TYPE in text:
            raise ConfigError(text) from None
        raise


def _look_up_every_second(node: Node) -> None:
    """Ends the node when the `dexgrasp up` that started it has ended, even if it was killed.

    Also lets Python see its signals, which wait while the executor does.
    """
    parent = os.environ.get(PARENT_VARIABLE)

    def check() -> None:
        if parent is not None and os.getppid() != int(parent):
            node.get_logger().error("the process that started this node is gone: stopping")
            # an executor with several threads would swallow a SystemExit
            os.kill(os.getpid(), signal.SIGTERM)

    node.create_timer(_CHECK_S, check, clock=Clock(clock_type=ClockType.STEADY_TIME))
