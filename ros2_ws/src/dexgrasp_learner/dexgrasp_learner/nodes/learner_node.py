"""A training run under ROS: its status as a topic; pause, resume, stop and save as services.

The run has its own thread and never waits for a topic.
"""

import sys
from pathlib import Path
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.duration import Duration
from rclpy.executors import Executor
from rclpy.node import Node

from dexgrasp_learner.commands.train import summary_json
from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.nodes.learner_report import learner_status
from dexgrasp_learner.run.control import RunState
from dexgrasp_learner.run.thread import RunThread
from dexgrasp_learner.storage.checkpoint_files import run_folder_of
from dexgrasp_learner.storage.history import load_settings
from dexgrasp_learner.storage.run_folder import create_run_folder
from dexgrasp_msgs.msg import LearnerStatus
from dexgrasp_msgs.srv import SaveCheckpoint, SetRunState
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.node_main import run_node

_STATUS_PERIOD_S = 1.0
_POLL_S = 0.2
_FAILED_EXIT = 1
_START_PATIENCE_S = 1.0
_LAST_WORD_TIMEOUT = Duration(seconds=2)
"""For a run that is stopped before its first iteration is done."""


class LearnerNode(Node):
    """Topic `~/status` (LearnerStatus, 1 Hz); services `~/set_run_state`, `~/save_checkpoint`.

    Parameters:
        config: YAML file of the run.
        resume: Run folder to continue, or one of its checkpoints, instead of `config`.
        runs: Parent of the run folder.
        run_id: Name of the run; "": made of the config's name and the time.
        overrides: `a.b=value` strings that override the file.
        save_timeout_s: How long a requested checkpoint may take.
        stop_timeout_s: How long the run may take to end with a checkpoint.

    Attributes:
        training: The run.
        stop_timeout_s: The parameter.
    """

    def __init__(self) -> None:
        super().__init__("learner_node")
        self._save_timeout_s: float = self._parameter("save_timeout_s", 120.0)
        self.stop_timeout_s: float = self._parameter("stop_timeout_s", 300.0)
        self.training = self._make_run()
        self._control = self.training.control
        self._status = self.create_publisher(LearnerStatus, "~/status", 1)
        self.create_timer(_STATUS_PERIOD_S, self.publish_status)
        self.create_service(SetRunState, "~/set_run_state", self._on_set_run_state)
        self.create_service(
            SaveCheckpoint,
            "~/save_checkpoint",
            self._on_save_checkpoint,
            callback_group=MutuallyExclusiveCallbackGroup(),  # status goes on meanwhile
        )

    def publish_status(self) -> None:
        """Publishes the status of the run."""
        stamp = self.get_clock().now().to_msg()
        self._status.publish(learner_status(self._control, self._run_id, stamp))

    def publish_last_status(self) -> None:
        """Publishes the status and waits until it has arrived, or the node's end discards it."""
        self.publish_status()
        self._status.wait_for_all_acked(_LAST_WORD_TIMEOUT)

    def _make_run(self) -> RunThread:
        config_path, resume = self._parameter("config", ""), self._parameter("resume", "")
        runs, self._run_id = self._parameter("runs", "runs"), self._parameter("run_id", "")
        overrides = self._parameter("overrides", [""])  # an empty list would have no type in ROS
        if not (config_path or resume):
            raise ConfigError("parameter config: name a run configuration, or resume a run folder")
        wanted = [text for text in overrides if text]
        start = Path(resume).resolve() if resume else None
        if start:
            folder = run_folder_of(start)
            config = load_settings(folder, wanted)
        else:
            config = load_run_config(Path(config_path), wanted)
            folder = create_run_folder(Path(runs), config.name, config, self._run_id)
        self.get_logger().info(f"run folder: {folder}")
        self._run_id = self._run_id or folder.name
        return RunThread(config, folder, self._run_id, resume=start)

    def _on_set_run_state(
        self, request: SetRunState.Request, response: SetRunState.Response
    ) -> SetRunState.Response:
        commands = {
            SetRunState.Request.PAUSE: (self._control.pause, "pauses"),
            SetRunState.Request.RESUME: (self._control.resume, "continues"),
            SetRunState.Request.STOP: (self._control.stop, "stops, with a checkpoint,"),
        }
        if request.command not in commands:
            response.message = f"command {request.command} is none of {sorted(commands)}"
            return response
        command, effect = commands[request.command]
        command()
        response.success = True
        response.message = f"the run {effect} after the present iteration"
        return response

    def _on_save_checkpoint(
        self, request: SaveCheckpoint.Request, response: SaveCheckpoint.Response
    ) -> SaveCheckpoint.Response:
        response.path = self._control.save(self._save_timeout_s)
        response.success = bool(response.path)
        if not response.success:
            response.message = f"no checkpoint within {self._save_timeout_s:g} s"
        return response

    def _parameter(self, name: str, default: Any) -> Any:
        return self.declare_parameter(name, default).value


def train(node: LearnerNode, executor: Executor) -> None:
    """Trains; ends with a checkpoint, even if the node is told to stop.

    Raises:
        SystemExit: The run failed, did not end in time, or was interrupted twice.
    """
    training = node.training
    training.start()
    try:
        while training.is_alive() and node.context.ok():
            executor.spin_once(timeout_sec=_POLL_S)
        if node.context.ok():
            node.publish_last_status()
    finally:
        if reason := _end_in_order(node):
            node.get_logger().error(f"the run failed: {reason}")
            raise SystemExit(_FAILED_EXIT)
    if training.summary is not None:
        print(summary_json(training.summary), flush=True)


def _end_in_order(node: LearnerNode) -> str:
    """Ends the run with a checkpoint, if there is something to save; returns why it failed."""
    training = node.training
    starting = training.control.status.state is RunState.STARTING
    try:
        training.stop(_START_PATIENCE_S if starting else node.stop_timeout_s)
    except TimeoutError as error:
        return "" if starting else str(error)  # the pool ends its workers at the process's exit
    except KeyboardInterrupt:
        return "interrupted for the second time, ended without a checkpoint"
    error = training.error
    return "" if error is None else str(error) or type(error).__name__


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    return run_node(LearnerNode, args, body=train, threads=2)


if __name__ == "__main__":
    sys.exit(main())
