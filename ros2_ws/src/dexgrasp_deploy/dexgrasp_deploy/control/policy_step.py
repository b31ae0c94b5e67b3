"""One step of the policy: from judged measurements to joint targets."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.observation import PolicyObserver
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime, predicted_object_position
from dexgrasp_deploy.control.port import Progress
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_deploy.control.telemetry.laps import LapTimer
from dexgrasp_deploy.control.telemetry.latency import Stage
from dexgrasp_deploy.drivers.base import CameraSample
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.robot.robot import Robot

Vector = NDArray[np.float64]


class PolicyStep:
    """Observes, infers and decodes, as in training.

    Attributes:
        decoder: Turns actions into joint targets.
        start: [J] rad, where episodes start.
        coming: Joint targets [J] rad of the newest action, each to be sent when its part of the
            control period begins: one, or as many as a fabric makes steps in a period.
    """

    def __init__(
        self,
        runtime: PolicyRuntime,
        robot: Robot,
        observer: PolicyObserver,
        clock: Callable[[], float],
        laps: LapTimer,
    ) -> None:
        """Raises ConfigError where the start posture does not fit the robot."""
        task = runtime.manifest.task
        self._runtime, self._observer, self._clock = runtime, observer, clock
        self._laps = laps
        self.coming: deque[Vector] = deque()
        self._episode_steps = task.episode_steps
        self.decoder = make_decoder(
            task.action,
            robot,
            1,
            task.control_dt_s,
            task.table_obstacle,
            difficulty=task.difficulty,
        )
        self.start: Vector = self.decoder.start_position.double().numpy()

    @property
    def target(self) -> Vector:
        """[J] rad, the joint targets at which the newest action ends."""
        return self.decoder.target[0].double().numpy()

    def begin(self, stands_at: Vector | None, attempts: int) -> Progress:
        """Begins an episode.

        Args:
            stands_at: [J] rad, where the robot stands; None: at `start`.
            attempts: Attempts, with this one.

        Raises:
            UnfitInput: The decoder cannot begin there.
        """
        self._runtime.reset()
        self.coming.clear()
        if stands_at is None:
            self.decoder.reset()
        else:
            try:
                self.decoder.reset(None, torch.from_numpy(stands_at).float().unsqueeze(0))
            except ValueError as error:
                raise UnfitInput(Reason.IN_OBSTACLE, str(error)) from None
        size = len(self._runtime.manifest.action_names)
        return Progress(action=np.zeros(size, np.float32), attempts=attempts)

    def step(
        self,
        measured: Measurement,
        sample: CameraSample | None,
        progress: Progress,
        now_s: float,
    ) -> Progress:
        """One control period.

        Args:
            measured: The joints.
            sample: The newest exposure.
            progress: Of the episode so far.
            now_s: Monotonic time.

        Returns:
            The progress with this step; its joint targets are in `coming`.

        Raises:
            UnfitInput: The image must not be acted on, or the action is not finite.
        """
        self._laps.end(Stage.RECEIVING)
        image = self._observer.image(sample, measured.position, now_s)
        fraction = min(1.0, progress.steps / self._episode_steps)
        observation = self._observer.observe(
            measured, image, self.decoder, progress.action, fraction
        )
        self._laps.end(Stage.PREPROCESSING)
        started_s = self._clock()
        action, prediction = self._runtime.act(observation)
        inference_s = self._clock() - started_s
        self._laps.end(Stage.INFERENCE)
        if not np.isfinite(action).all():
            raise UnfitInput(Reason.BAD_ACTION, f"action {action}")
        self.decoder.decode(torch.from_numpy(action).unsqueeze(0))
        self.coming.extend(self.decoder.path[:, 0].double().numpy())  # [K, J] rad
        self._laps.end(Stage.DECODING)
        object_m = predicted_object_position(self._runtime.manifest, prediction)
        first = progress.steps == 0
        seen_s = measured.stamp_s if image is None or sample is None else sample.stamp_s
        return replace(
            progress,
            steps=progress.steps + 1,
            first_s=now_s if first else progress.first_s,
            last_s=now_s,
            inference_s=inference_s,
            observation_age_s=now_s - min(measured.stamp_s, seen_s),
            action=action,
            first_object_m=object_m if first else progress.first_object_m,
            object_m=object_m,
        )
