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
from dexgrasp_deploy.control.episode import Reason, State
from dexgrasp_deploy.control.observation import UnfitInput
from dexgrasp_msgs.action import Grasp

_MAX_TIMEOUT_S = 600.0
_LIFTING_M = 0.02
_CODES = {
    Reason.CANCELLED: Grasp.Result.CANCELLED,
    Reason.STALE_JOINTS: Grasp.Result.STALE_OBSERVATION,
    Reason.STALE_IMAGE: Grasp.Result.STALE_OBSERVATION,
    Reason.TIME_UP: Grasp.Result.TIMEOUT,
}


class GraspAction:
    """Action server `grasp`."""

    def __init__(self, node: Node, loop: Callable[[], ControlLoop | None]) -> None:
        """Starts the server.

        Args:
            node: Owner.
            loop: Returns the active control loop; None while no policy is active.
        """
        self._loop = loop
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
            result = _result(loop, _lift_height_m(goal, loop))
        goal.execute(partial(_conclude, result=result))

    def report(self) -> None:
        """Publishes feedback; called by a timer."""
        goal, loop = self._goal, self._loop()
        if goal is not None and loop is not None:
            goal.publish_feedback(_feedback(loop, _lift_height_m(goal, loop)))

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
        try:
            loop.start(request.timeout_s or None, shadow=request.mode == Grasp.Goal.SHADOW)
        except UnfitInput as unfit:
            return _failure(_CODES.get(unfit.reason, codes.FAULT), str(unfit))
        except ValueError as error:
            return _failure(codes.FAULT, str(error))
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


def _lift_height_m(goal: ServerGoalHandle, loop: ControlLoop) -> float:
    return goal.request.lift_height_m or loop.task.success.height_m


def _result(loop: ControlLoop, lift_height_m: float) -> Grasp.Result:
    """The result of an ended episode; success is judged by the policy's own prediction."""
    progress, reason = loop.progress, loop.episode.reason
    lift_m = progress.predicted_lift_m
    success = reason is Reason.TIME_UP and lift_m is not None and lift_m >= lift_height_m
    code = Grasp.Result.SUCCESS if success else _CODES.get(reason, Grasp.Result.FAULT)
    message = "" if success else reason.value
    if reason is Reason.TIME_UP and lift_m is None:
        message += "; this policy does not predict where the object is: lift not judged"
    return Grasp.Result(
        success=success,
        error_code=code,
        error_msg=message,
        duration_s=progress.last_s - progress.first_s,
        steps=progress.steps,
        deadline_misses=progress.deadline_misses,
        clamped_commands=progress.clamped_commands,
    )


def _feedback(loop: ControlLoop, lift_height_m: float) -> Grasp.Feedback:
    progress = loop.progress
    feedback = Grasp.Feedback(phase=Grasp.Feedback.STARTING)
    if loop.episode.state is State.RUNNING:
        lift_m = progress.predicted_lift_m or 0.0
        feedback.phase = Grasp.Feedback.REACHING
        if lift_m > _LIFTING_M:
            feedback.phase = Grasp.Feedback.LIFTING
        if lift_m >= lift_height_m:
            feedback.phase = Grasp.Feedback.HOLDING
        feedback.elapsed_s = progress.last_s - progress.first_s
        feedback.progress = min(1.0, progress.steps / loop.length)
    return feedback
