"""The status of a run as a LearnerStatus message."""

from builtin_interfaces.msg import Time

from dexgrasp_learner.run.control import RunControl, RunState, RunStatus
from dexgrasp_msgs.msg import LearnerStatus

_GOING_ON = (RunState.STARTING, RunState.RUNNING, RunState.PAUSED)


def learner_status(control: RunControl, run_id: str, stamp: Time) -> LearnerStatus:
    """The status of a run as a message.

    Args:
        control: Of the run.
        run_id: Id under which the simulators are found.
        stamp: The present time.
    """
    status = control.status
    stopping = control.stopping and status.state in _GOING_ON
    message = LearnerStatus(
        run_id=run_id,
        state=(RunState.STOPPING if stopping else status.state).value,
        message=status.message,
        schema_hash=status.schema_hash,
        iteration=status.iteration,
        iterations_total=status.iterations,
        env_steps=status.env_steps,
        env_steps_per_second=status.env_steps_per_s,
        eta_s=_remaining_s(status),
        fraction_rollout=status.rollout_fraction,
        fraction_update=status.update_fraction,
        policy_version=status.policy_version,
        policy_lag=status.policy_lag,
        reward_mean=status.reward,
        episode_success=status.success,
        adr_level=status.adr_level,
        num_workers=status.num_workers,
        workers_alive=status.workers_alive,
        checkpoint=status.checkpoint,
    )
    message.header.stamp = stamp
    return message


def _remaining_s(status: RunStatus) -> float:
    """Steps left at the last iteration's rate; NaN before the first iteration."""
    if not status.iteration or not status.env_steps_per_s:
        return float("nan")
    steps_per_iteration = status.env_steps / status.iteration
    left = max(status.iterations - status.iteration, 0)
    return left * steps_per_iteration / status.env_steps_per_s
