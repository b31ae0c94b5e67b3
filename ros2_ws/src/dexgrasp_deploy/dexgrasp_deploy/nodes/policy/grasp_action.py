"""The Grasp action on a control loop: one goal at a time, without a separate thread.

The execute callback of an accepted goal is called only when its episode has ended, to set the
result. Until then the control loop runs the episode, and timers send feedback and check its end.
"""

from collections.abc import Callable
from functools import partial

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import POLICY_ACTS, Reason, State, UnfitInput
from dexgrasp_msgs.action import Grasp

_MAX_TIMEOUT_S = 600.0
_CODES = {
    Reason.BUSY: Grasp.Result.BUSY,
    Reason.CANCELLED: Grasp.Result.CANCELLED,
    Reason.STALE_JOINTS: Grasp.Result.STALE_OBSERVATION,
    Reason.STALE_IMAGE: Grasp.Result.STALE_OBSERVATION,
    Reason.STAMP_AHEAD: Grasp.Result.STALE_OBSERVATION,
    Reason.FROZEN: Grasp.Result.STALE_OBSERVATION,
    Reason.TIME_UP: Grasp.Result.TIMEOUT,
}
_ENDS_WELL = frozenset({Reason.TIME_UP, Reason.AT_HOME})
"""How an episode ends in HOLD when nothing went wrong: where it grasped, or at home again."""


class GraspAction:
    """Action server `grasp`."""

    def __init__(self, node: Node, loop: Callable[[], ControlLoop | None]) -> None:
        """Starts the server.

        Args:
            node: Owner.
            loop: Returns the active control loop; None while no policy is active.
        """
        self._loop = loop
        self._log = node.get_logger().error
        self._goal: ServerGoalHandle | None = None
        self._server = ActionServer(
            node,
            Grasp,
            "grasp",
            execute_callback=partial(_conclude, result=Grasp.Result()),
            handle_accepted_callback=self._begin,
            cancel_callback=self._cancel,
        )

    def end_when_over(self) -> None:
        """Ends the goal when its episode has ended; called by a timer."""
        goal, loop = self._goal, self._loop()
        if goal is None or (loop is not None and loop.episode.active):
            return
        self._goal = None
        if loop is None:
            result = _failure(Grasp.Result.FAULT, "the policy was deactivated")
        else:
            result = _result(loop)
        goal.execute(partial(_conclude, result=result))

    def report(self) -> None:
        """Publishes feedback; called by a timer."""
        goal, loop = self._goal, self._loop()
        if goal is not None and loop is not None:
            goal.publish_feedback(_feedback(loop))

    def destroy(self) -> None:
        """Destroys the server."""
        self._server.destroy()

    def _begin(self, goal: ServerGoalHandle) -> None:
        refusal = self._try_to_start(goal.request)
        if refusal is None:
            self._goal = goal
        else:
            goal.execute(partial(_conclude, result=refusal))

    def _try_to_start(self, request: Grasp.Goal) -> Grasp.Result | None:
        """Begins an episode; returns a result with the reason if that is not possible."""
        loop, codes = self._loop(), Grasp.Result
        if loop is None:
            return _failure(codes.NO_POLICY, "no policy is active; load a bundle")
        if self._goal is not None or loop.episode.active:
            return _failure(codes.BUSY, "another episode is running")
        if request.mode not in (Grasp.Goal.EXECUTE, Grasp.Goal.SHADOW):
            return _failure(codes.INVALID_GOAL, f"mode {request.mode}: not EXECUTE or SHADOW")
        if not (0 <= request.timeout_s <= _MAX_TIMEOUT_S and request.lift_height_m >= 0):
            values = f"timeout_s {request.timeout_s}, lift_height_m {request.lift_height_m}"
            allowed = f"allowed are 0 to {_MAX_TIMEOUT_S} s and not negative"
            return _failure(codes.INVALID_GOAL, f"{values}: {allowed}")
        shadow = request.mode == Grasp.Goal.SHADOW
        if loop.episode.state is State.FAULT:
            return _failure(codes.FAULT, f"refused: the robot is in FAULT: {loop.episode.why}")
        try:
            loop.start(request.timeout_s or None, shadow, request.lift_height_m or None)
        except UnfitInput as unfit:
            code = _CODES.get(unfit.reason, codes.FAULT)
            self._log(f"goal refused: {loop.refusal}")
            return _failure(code, f"refused: {loop.refusal}")
        return None

    def _cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        loop = self._loop()
        if loop is not None and goal is self._goal:
            loop.cancel()
        return CancelResponse.ACCEPT


def _conclude(goal: ServerGoalHandle, result: Grasp.Result) -> Grasp.Result:
    """The execute callback of every goal: its result is known when it is called."""
    if result.success:
        goal.succeed()
    elif goal.is_cancel_requested:
        goal.canceled()
    else:
        goal.abort()
    return result


def _failure(code: int, message: str) -> Grasp.Result:
    return Grasp.Result(success=False, error_code=code, error_msg=message)


def _result(loop: ControlLoop) -> Grasp.Result:
    """The result of an ended episode; the message says what speaks for a grasp, or against it."""
    progress, reason = loop.progress, loop.episode.reason
    ended_well = loop.episode.state is State.HOLD and reason in _ENDS_WELL
    success = ended_well and progress.success is True
    code = _CODES.get(Reason.TIME_UP if ended_well else reason, Grasp.Result.FAULT)
    message = loop.episode.why
    if reason is Reason.AT_HOME:
        message = f"{message}; {progress.evidence}"
    return Grasp.Result(
        success=success,
        error_code=Grasp.Result.SUCCESS if success else code,
        error_msg=message,
        duration_s=progress.last_s - progress.first_s,
        steps=progress.steps,
        deadline_misses=progress.deadline_misses,
        clamped_commands=progress.clamped_commands,
    )


def _feedback(loop: ControlLoop) -> Grasp.Feedback:
    progress, state = loop.progress, loop.episode.state
    feedback = Grasp.Feedback(phase=Grasp.Feedback.STARTING)
    if state in (State.HAND_OVER, State.PLACE) or (progress.steps and state is State.HOME):
        feedback.phase = Grasp.Feedback.STOPPING
    elif state is State.GRASP:
        feedback.phase = Grasp.Feedback.REACHING
    elif state is State.LIFT:
        high = progress.evidence.lift_m >= loop.lift_height_m
        feedback.phase = Grasp.Feedback.HOLDING if high else Grasp.Feedback.LIFTING
    if state in POLICY_ACTS:
        feedback.elapsed_s = progress.last_s - progress.first_s
        feedback.progress = min(1.0, progress.steps / loop.length)
    return feedback
