"""What each step of the policy did: measured here, and told to whoever records or shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.control.port import Progress
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_deploy.control.telemetry.laps import LapTimer
from dexgrasp_deploy.control.telemetry.latency import Latencies, Stage
from dexgrasp_deploy.drivers.base import CameraSample

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One step; its action is in the `Progress` that comes with it.

    Attributes:
        now_s: Monotonic time of its beginning.
        measured: The joints that it saw.
        sample: The exposure that it saw; None for a policy without images.
        decoded: [J] rad, the joint targets at which its action ends.
        safe: [J] rad, what the safety filter made of the first targets of the action; it left
            unless in shadow.
    """

    now_s: float
    measured: Measurement
    sample: CameraSample | None
    decoded: Vector
    safe: Vector


class StepListener(Protocol):
    """Is called in the control loop, after the command has left; it must return at once."""

    def begun(self, start: Vector) -> None:
        """The policy begins; its decoder starts from the joint targets [J] rad."""
        ...

    def stepped(self, step: Step, progress: Progress) -> None:
        """A step was made; `progress` includes it."""
        ...


class StepReport:
    """Measures the ages and delays of steps, and passes steps on.

    Attributes:
        latencies: Of all steps so far.
        laps: Divides their periods into stages.
        count: Of these.
        listener: Is told of every step; None for nobody.
    """

    def __init__(self, control_dt_s: float, clock: Callable[[], float]) -> None:
        self.latencies = Latencies(control_dt_s)
        self.laps = LapTimer(self.latencies, clock)
        self.count = 0
        self.listener: StepListener | None = None
        self._clock = clock
        self._seen_s = -np.inf

    def late(self, duration_s: float) -> None:
        """A period began this long after its deadline."""
        self.latencies.add(Stage.LATENESS, duration_s)

    def begun(self, start: Vector) -> None:
        """The policy begins; see `StepListener`."""
        if self.listener is not None:
            self.listener.begun(start)

    def stepped(self, step: Step, progress: Progress) -> None:
        """A step was made, and its command has left."""
        delay_s = self._clock() - step.now_s
        self.count += 1
        add = self.latencies.add
        add(Stage.JOINT_AGE, step.now_s - step.measured.stamp_s)
        add(Stage.ACTION_DELAY, delay_s)
        sample = step.sample
        if sample is not None:
            age_s = step.now_s - sample.stamp_s
            add(Stage.IMAGE_AGE, age_s)
            add(Stage.IMAGE_TO_COMMAND, age_s + delay_s)
            if sample.stamp_s != self._seen_s:
                self._seen_s = sample.stamp_s
                add(Stage.ARRIVAL, sample.received_s - sample.stamp_s)
                add(Stage.WAITING, step.now_s - sample.received_s)
        if self.listener is not None:
            self.listener.stepped(step, progress)
        self.laps.end(Stage.REPORTING)
        self.laps.keep()
