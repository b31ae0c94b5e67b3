"""Telemetry of workers, outside the training path.

A worker writes its own row of the telemetry tensors after each step and does not wait for readers.
A reader (the ROS node of a worker, a viewer) attaches by run id and may choose one environment to
watch; only then is a view of it written, at most 30 times per second.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from dexgrasp_sim.transport.layout import COUNTERS, SECONDS, RunLayout
from dexgrasp_sim.transport.protocol import ProtocolError
from dexgrasp_sim.transport.shared_memory import Segment

VIEW_PERIOD_S = 1 / 30
_VIEW = "view."

_COUNTER = {name: column for column, name in enumerate(COUNTERS)}
_SECOND = {name: column for column, name in enumerate(SECONDS)}
_READ_ATTEMPTS = 100


class WorkerState(IntEnum):
    """What a worker is doing."""

    ABSENT = 0
    BUILDING = 1
    WAITING = 2
    STEPPING = 3
    STOPPED = 4


_STATES = frozenset(WorkerState)


class WorkerTelemetry:
    """Writes the telemetry row of one worker."""

    def __init__(
        self,
        telemetry: Mapping[str, Tensor],
        index: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Binds to row `index` of the tensors of `RunLayout.telemetry_blocks`.

        Args:
            telemetry: The tensors by name.
            index: Worker index.
            clock: Monotonic seconds.
        """
        # numpy, because writing one number through a torch view takes microseconds
        self._counters = telemetry["telemetry.counters"][index].numpy()
        self._seconds = telemetry["telemetry.seconds"][index].numpy()
        self._watched = telemetry["telemetry.watched"].numpy()
        self._difficulty = telemetry["control.difficulty"].numpy()
        self._view_env = telemetry["view.env"][index].numpy()
        self._view = {
            name.removeprefix(_VIEW): tensor[index]
            for name, tensor in telemetry.items()
            if name.startswith(_VIEW) and name != "view.env"
        }
        self._clock = clock

    def count(self, **values: int) -> None:
        """Sets columns of `COUNTERS`."""
        for name, value in values.items():
            self._counters[_COUNTER[name]] = value

    def counter(self, name: str) -> int:
        """A column of `COUNTERS`; it keeps its value when a lost worker is replaced."""
        return int(self._counters[_COUNTER[name]])

    def spend(self, **seconds: float) -> None:
        """Adds to columns of `SECONDS`."""
        for name, value in seconds.items():
            self._seconds[_SECOND[name]] += value

    @property
    def difficulty(self) -> float:
        """Difficulty, 0 to 1, that the learner has set for coming episodes."""
        return float(self._difficulty[0])

    def wanted_env(self, start: int, stop: int) -> int | None:
        """The watched environment (global index) if it is in [start, stop) and a view is due."""
        watched = int(self._watched[0]) - 1
        if not start <= watched < stop:
            return None
        age_s = self._clock() - self._seconds[_SECOND["view_time_s"]]
        same = watched == self._view_env[0]
        return None if same and age_s < VIEW_PERIOD_S else watched

    def show(self, env: int, values: Mapping[str, Tensor]) -> None:
        """Writes the view of environment `env` (global index).

        The sequence number is odd during the write, so that a reader can discard an incomplete
        view. It may be odd at the start if a worker was killed during a write.

        Args:
            env: Global index.
            values: Of `VecEnv.telemetry`; keys that are not in the view's specs are ignored.
        """
        writing = self.counter("view_sequence") | 1
        self.count(view_sequence=writing)
        for name, target in self._view.items():
            target.copy_(values[name])
        self._view_env[0] = env
        self._seconds[_SECOND["view_time_s"]] = self._clock()
        self.count(view_sequence=writing + 1)


def received_rows(values: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The telemetry row of a worker on another host.

    Args:
        values: Lists `counters` and `seconds`, as they were received.

    Returns:
        Counters [len(COUNTERS)] int64 and seconds [len(SECONDS)] float64.

    Raises:
        ProtocolError: They are something else.
    """
    counters: Any = values.get("counters")
    seconds: Any = values.get("seconds")
    if not _are(int, counters, len(COUNTERS)) or not _are(float, seconds, len(SECONDS)):
        raise ProtocolError(
            f"telemetry that is not {len(COUNTERS)} counters and {len(SECONDS)} times: "
            f"{str(counters)[:100]}, {str(seconds)[:100]}"
        )
    if counters[_COUNTER["state"]] not in _STATES:
        raise ProtocolError(f"a worker in the unknown state {counters[_COUNTER['state']]}")
    return torch.tensor(counters), torch.tensor(seconds, dtype=torch.float64)


def _are(kind: type, values: Any, length: int) -> bool:
    """Whether these are so many numbers of one type that a column can hold, none negative."""
    if not isinstance(values, list) or len(values) != length:
        return False
    return all(type(value) is kind and 0 <= value < 2**63 for value in values)


@dataclass(frozen=True)
class WorkerStatus:
    """One worker's row, read at one moment.

    Attributes:
        index: Worker index.
        pid: Process id, 0 before it has attached.
        state: What it is doing.
        steps: Control steps since the run's start, each of all its environments.
        episodes: Episodes ended since then.
        policy_version: Of the newest actions.
        slot: Index on the rollout's time axis that it wrote last.
        simulating_s: Seconds in steps without rendering.
        rendering_s: Seconds in rendering.
        waiting_s: Seconds waiting for the learner.
        difficulty: Of coming episodes, 0 to 1; the same for all workers.
        newest_episode: Largest episode number among its environments.
        resets_not_finite: Number of resets of environments whose state or output was not finite.
    """

    index: int
    pid: int
    state: WorkerState
    steps: int
    episodes: int
    policy_version: int
    slot: int
    simulating_s: float
    rendering_s: float
    waiting_s: float
    difficulty: float = 0.0
    newest_episode: int = 0
    resets_not_finite: int = 0


def read_statuses(telemetry: Mapping[str, Tensor]) -> list[WorkerStatus]:
    """The rows of all workers."""
    counters = telemetry["telemetry.counters"].tolist()
    seconds = telemetry["telemetry.seconds"].tolist()
    difficulty = float(telemetry["control.difficulty"][0])
    statuses = []
    for index, (count, spent) in enumerate(zip(counters, seconds, strict=True)):
        values: dict[str, Any] = {name: count[_COUNTER[name]] for name in COUNTERS}
        values.pop("view_sequence")
        values["state"] = WorkerState(values["state"])
        times = {f"{n}_s": spent[_SECOND[n]] for n in ("simulating", "rendering", "waiting")}
        statuses.append(WorkerStatus(index, **values, **times, difficulty=difficulty))
    return statuses


@dataclass(frozen=True)
class EnvView:
    """One environment at one moment.

    Attributes:
        env: Global index.
        time_s: Monotonic seconds (one clock for all processes of a host) when it was taken.
        values: Copies of the tensors of `EnvSpecs.view_specs` by name.
    """

    env: int
    time_s: float
    values: dict[str, Tensor]


class RunObserver:
    """Observes a run from another process without affecting the training path."""

    def __init__(self, run_id: str) -> None:
        """Attaches; errors as for `Segment.attach`."""
        self._segment = Segment.attach(run_id)

    @property
    def layout(self) -> RunLayout:
        """Specs, sizes and slices of the run."""
        return self._segment.layout

    def statuses(self) -> list[WorkerStatus]:
        """The current status of all workers."""
        return read_statuses(self._segment.telemetry)

    def watch(self, env: int | None) -> None:
        """Selects the environment that all observers of the run see; None: none.

        Raises:
            ValueError: There is no such environment.
        """
        if env is not None and not 0 <= env < self.layout.num_envs:
            raise ValueError(f"environment {env} is not in 0..{self.layout.num_envs - 1}")
        self._segment.telemetry["telemetry.watched"][0] = 0 if env is None else env + 1

    def view(self) -> EnvView | None:
        """The view of the watched environment; None until its worker has written it."""
        tensors = self._segment.telemetry
        env, row = self._watched()
        if row is None:
            return None
        sequence = tensors["telemetry.counters"][row].numpy()[_COUNTER["view_sequence"] :]
        for _ in range(_READ_ATTEMPTS):
            before = int(sequence[0])
            view = EnvView(
                env=int(tensors["view.env"][row]),
                time_s=float(tensors["telemetry.seconds"][row, _SECOND["view_time_s"]]),
                values={
                    spec.name: tensors[f"view.{spec.name}"][row].clone()
                    for spec in self.layout.specs.view_specs
                },
            )
            if before % 2 == 0 and before == int(sequence[0]):
                return view if before > 0 and view.env == env else None
        return None

    def observation(self, name: str) -> Tensor | None:
        """A copy of the watched environment's newest observation in one group, `spec.shape`.

        The worker may be writing it meanwhile: use it for display only.
        """
        env, row = self._watched()
        if row is None:
            return None
        return self._segment.tensors[name][self.statuses()[row].slot, env].clone()

    def close(self) -> None:
        """Detaches; idempotent."""
        self._segment.close()

    def _watched(self) -> tuple[int, int | None]:
        """Index of the watched environment (-1: none) and of its worker."""
        env = int(self._segment.telemetry["telemetry.watched"]) - 1
        slices = enumerate(self.layout.slices)
        return env, next((k for k, (start, stop) in slices if start <= env < stop), None)
