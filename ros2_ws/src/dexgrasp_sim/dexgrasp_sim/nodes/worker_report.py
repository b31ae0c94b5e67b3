"""A worker's telemetry as SimWorkerStatus messages."""

from collections import deque
from collections.abc import Mapping, Sequence

from torch import Tensor

from dexgrasp_msgs.msg import SimWorkerStatus
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.telemetry import WorkerState, WorkerStatus
from dexgrasp_sim.vec_env import SUCCESS, whole_episodes

_STATES = {
    WorkerState.ABSENT: SimWorkerStatus.STARTING,
    WorkerState.BUILDING: SimWorkerStatus.STARTING,
    WorkerState.WAITING: SimWorkerStatus.RUNNING,
    WorkerState.STEPPING: SimWorkerStatus.RUNNING,
    WorkerState.STOPPED: SimWorkerStatus.FINISHED,
}
_EPISODES = 100
"""The success rate is a mean over this number of episodes, as in the learner's statistics."""


class WorkerReporter:
    """Turns readings of a run's telemetry into one worker's status; rates are between readings."""

    def __init__(
        self, run_id: str, worker: int, layout: RunLayout, tensors: Mapping[str, Tensor]
    ) -> None:
        """Prepares the reports of one worker.

        Args:
            run_id: Of the run.
            worker: Index of the worker.
            layout: Of the run.
            tensors: The run's rollout tensors; only read.
        """
        self._run_id = run_id
        self._worker = worker
        self._layout = layout
        self._start, self._stop = layout.slices[worker]
        self._tensors = tensors
        self._successes: deque[float] = deque(maxlen=_EPISODES)
        self._sequence = 0
        self._last: tuple[WorkerStatus, float] | None = None

    def report(self, statuses: Sequence[WorkerStatus], now_s: float) -> SimWorkerStatus:
        """The message for one reading.

        Args:
            statuses: All workers' rows, just read.
            now_s: Monotonic time of the reading.
        """
        own, layout = statuses[self._worker], self._layout
        self._collect_episodes()
        message = SimWorkerStatus(
            run_id=self._run_id,
            worker=self._worker,
            num_envs=self._stop - self._start,
            state=_STATES[own.state],
            transport="shared_memory",
            schema_hash=layout.schema_hash,
            steps=own.steps,
            policy_version=own.policy_version,
            policy_lag=max(other.policy_version for other in statuses) - own.policy_version,
            slot=own.slot % layout.horizon + 1 if own.state > WorkerState.BUILDING else 0,
            horizon=layout.horizon,
            episodes=own.episodes,
            episode_success=self._success(),
            adr_level=own.difficulty,
        )
        self._add_rates(message, own, now_s)
        self._last = own, now_s
        return message

    def _add_rates(self, message: SimWorkerStatus, own: WorkerStatus, now_s: float) -> None:
        if self._last is None:
            return
        last, last_s = self._last
        period_s = max(now_s - last_s, 1e-9)
        steps = max(own.steps - last.steps, 0)
        message.env_steps_per_second = steps * message.num_envs / period_s

        def share(spent_s: float) -> float:
            # time is added when a step or wait ends, so part of it may be of the period before
            return min(max(spent_s / period_s, 0.0), 1.0)

        message.fraction_simulating = share(own.simulating_s - last.simulating_s)
        message.fraction_rendering = share(own.rendering_s - last.rendering_s)
        message.fraction_waiting = share(own.waiting_s - last.waiting_s)

    def _collect_episodes(self) -> None:
        """Collects the episodes that ended in slots written since the last reading.

        Slots that were overwritten in between are missed; a sample of the episodes is enough.
        """
        sequence = self._tensors["sequence"][1:, self._worker]  # slot 0 is a copy of the last
        newest = int(sequence.max())
        rows = slice(self._start, self._stop)
        for slot in (sequence > self._sequence).nonzero().squeeze(1).add(1).tolist():
            ended = (
                self._tensors["terminated"][slot, rows] | self._tensors["truncated"][slot, rows]
            )
            whole = whole_episodes(self._tensors["episode"][slot, rows], ended)
            self._successes.extend(whole[:, SUCCESS].tolist())
        self._sequence = newest

    def _success(self) -> float:
        if not self._successes:
            return float("nan")
        return sum(self._successes) / len(self._successes)
