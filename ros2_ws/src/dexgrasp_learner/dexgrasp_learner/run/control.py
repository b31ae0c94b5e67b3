"""Control and status of a run, for use from other threads."""

import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class RunState(Enum):
    """State of a run; the names are those of `LearnerStatus.msg`."""

    STARTING = 0
    RUNNING = 1
    PAUSED = 2
    STOPPING = 3
    FINISHED = 4
    FAILED = 5


@dataclass(frozen=True)
class RunStatus:
    """A snapshot of a run; replaced as a whole after every iteration.

    Attributes:
        run_id: Name of the run folder.
        policy_version: Number of updates of the policy.
        policy_lag: Updates by which the policy of the last rollout was older than the policy that
            began to learn from it.
        success: Fraction of successes among the last exploring episodes; NaN before any.
        reward: Mean reward per step of the last rollout.
        rollout_fraction: Share of the time spent in rollouts since the run started.
        update_fraction: The same for updates.
        remaining_s: Estimated time to the end; NaN while unknown.
        adr_level: Difficulty of the episodes, 0 to 1.
        schema_hash: Of the observation groups in use.
        restarts: Workers that were lost and replaced since the run started.
        refused_connections: Connections of strangers and of other users that were refused.
        checkpoint: Path of the last checkpoint, "" before any.
        message: Why a run failed.
    """

    state: RunState = RunState.STARTING
    run_id: str = ""
    iteration: int = 0
    iterations: int = 0
    env_steps: int = 0
    env_steps_per_s: float = 0.0
    policy_version: int = 0
    policy_lag: int = 0
    episodes: int = 0
    success: float = float("nan")
    reward: float = 0.0
    rollout_fraction: float = 0.0
    update_fraction: float = 0.0
    remaining_s: float = float("nan")
    adr_level: float = 0.0
    schema_hash: str = ""
    num_workers: int = 0
    workers_alive: int = 0
    restarts: int = 0
    refused_connections: int = 0
    checkpoint: str = ""
    message: str = ""


@dataclass(frozen=True)
class RunSummary:
    """What a run reports when it ends.

    Attributes:
        evaluation_success: Success rate of the policy that the run exports, by its mean action;
            None without an evaluation.
        seconds: Of the learner by stage: `wait` for simulators, `copy`, `infer`, `update`, `join`
            (waiting for an update that overlaps), `checkpoint`, `evaluation`.
        worker_seconds: Of each worker: steps, and seconds `simulating`, `rendering`, `waiting`.
    """

    iterations: int
    env_steps: int
    workers: int
    transport: str
    slot_mismatches: int
    success: float
    evaluation_success: float | None
    checkpoint: str
    run_dir: str
    seconds: dict[str, float]
    worker_seconds: list[dict[str, float]]
    restarts: int = 0
    refused_connections: int = 0


@dataclass
class RunControl:
    """Requests to a run, made from any thread and carried out between iterations."""

    status: RunStatus = field(default_factory=RunStatus)
    _resumed: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _save: threading.Event = field(default_factory=threading.Event)
    _saved: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """A run starts unpaused."""
        self._resumed.set()

    def pause(self) -> None:
        """Pauses the run after the present iteration."""
        self._resumed.clear()

    def resume(self) -> None:
        """Continues a paused run."""
        self._resumed.set()

    def stop(self) -> None:
        """Ends the run after the present iteration, with a checkpoint."""
        self._stop.set()
        self._resumed.set()

    @property
    def paused(self) -> bool:
        """Whether a pause is requested."""
        return not self._resumed.is_set()

    @property
    def save_asked(self) -> bool:
        """Whether a checkpoint is requested."""
        return self._save.is_set()

    @property
    def stopping(self) -> bool:
        """Whether a stop is requested."""
        return self._stop.is_set()

    def save(self, timeout_s: float) -> str:
        """Requests a checkpoint and waits for it.

        Returns:
            Its path, "" when the run did not write one in time.
        """
        self._saved.clear()
        self._save.set()
        return self.status.checkpoint if self._saved.wait(timeout_s) else ""

    def wait_while_paused(self, timeout_s: float) -> None:
        """Called by the run: returns at once unless paused, else after at most `timeout_s`."""
        self._resumed.wait(timeout_s)

    def take_save_request(self) -> bool:
        """Called by the run: whether a checkpoint was requested; the run then calls `saved`."""
        if not self._save.is_set():
            return False  # clearing here could lose a request that arrives at this moment
        self._save.clear()
        return True

    def saved(self, path: Path) -> None:
        """Called by the run when a checkpoint is complete; `status` already names it."""
        assert self.status.checkpoint == str(path)
        self._saved.set()
