"""The control loop's state as a PolicyStatus message."""

from array import array

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import State
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.conversions import BASE_FRAME

_RESTING = {
    State.IDLE: PolicyStatus.IDLE,
    State.HOLD: PolicyStatus.HOLD,
    State.FAULT: PolicyStatus.FAULT,
}


def policy_status(loop: ControlLoop | None, stamp: Time) -> PolicyStatus:
    """Fills the message.

    Args:
        loop: None while no bundle is loaded.
        stamp: The present time.
    """
    status = PolicyStatus(message="no bundle is loaded")
    status.header.stamp = stamp
    status.header.frame_id = BASE_FRAME
    nan = float("nan")
    status.predicted_object_position = Point(x=nan, y=nan, z=nan)
    if loop is None:
        return status
    progress = loop.progress
    status.bundle_id = loop.bundle_id
    status.state = _RESTING.get(loop.episode.state, PolicyStatus.RUNNING)
    status.message = describe(loop)
    status.control_hz = 1.0 / loop.control_dt_s
    status.step = progress.steps
    status.deadline_misses = progress.deadline_misses
    status.clamped_commands = progress.clamped_commands
    status.inference_latency_s = progress.inference_s
    status.observation_age_s = progress.observation_age_s
    status.action = array("f", progress.action)
    if progress.object_m is not None:
        x, y, z = progress.object_m.tolist()
        status.predicted_object_position = Point(x=x, y=y, z=z)
    return status


def describe(loop: ControlLoop) -> str:
    """State, reason and numbers, whether in shadow, and the last refusal, in one line."""
    shadow = "; shadow: no command leaves" if loop.shadow else ""
    refusal = f"; last refusal: {loop.refusal}" if loop.refusal else ""
    return f"{loop.episode.state.name}: {loop.episode.why}{shadow}{refusal}"
