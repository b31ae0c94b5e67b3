"""Where measurements come from and commands go to, and what is reported about an episode."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.control.evidence import Evidence
from dexgrasp_deploy.drivers.base import CameraSample, JointSample

Vector = NDArray[np.float64]


class RobotPort(Protocol):
    """Source of measurements and sink of commands: topics in a node, drivers in a test."""

    def receive(self) -> None:
        """Takes what has arrived; `joints` and `image` return that until the next call."""
        ...

    def joints(self) -> Sequence[JointSample]:
        """The newest sample of each stream of joints: one for all, or one for each device."""
        ...

    def image(self) -> CameraSample | None:
        """The newest exposure."""
        ...

    def send(self, positions: dict[str, float]) -> None:
        """Sends joint position targets, rad by joint name."""
        ...

    def wait_until(self, time_s: float) -> None:
        """Returns at the monotonic time `time_s`; may receive measurements meanwhile."""
        ...


@dataclass(frozen=True)
class Progress:
    """Progress of an episode; a new object at every step.

    Attributes:
        steps: Actions so far, of the present attempt.
        first_s: Monotonic time of the first action.
        last_s: Monotonic time of the newest action.
        deadline_misses: Control periods that ended late.
        clamped_commands: Commands that the safety filter changed.
        reused: Control periods that repeated a command because a measurement was late.
        inference_s: Duration of the newest policy evaluation.
        observation_age_s: Age of the oldest sample in the newest observation.
        attempts: Attempts begun.
        action: [A], the newest action.
        first_object_m: [3] first prediction of the object's position, base frame; None without.
        object_m: [3] the newest such prediction.
        evidence: What speaks for a grasp.
        success: Whether that was enough at the end; None before.
    """

    steps: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    deadline_misses: int = 0
    clamped_commands: int = 0
    reused: int = 0
    inference_s: float = 0.0
    observation_age_s: float = 0.0
    attempts: int = 0
    action: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    first_object_m: Vector | None = None
    object_m: Vector | None = None
    evidence: Evidence = field(default_factory=Evidence)
    success: bool | None = None

    @property
    def control_hz(self) -> float:
        """Actions per second, 0 before the second action."""
        return (self.steps - 1) / (self.last_s - self.first_s) if self.steps > 1 else 0.0

    @property
    def predicted_lift_m(self) -> float | None:
        """Predicted lift of the object since the first step; None if the policy predicts none."""
        if self.object_m is None or self.first_object_m is None:
            return None
        return float(self.object_m[2] - self.first_object_m[2])
