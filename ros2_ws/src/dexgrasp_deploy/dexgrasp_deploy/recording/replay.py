"""Runs a policy again on what was recorded, and compares its actions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_deploy.control.observation import PolicyObserver
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime
from dexgrasp_deploy.control.policy_step import PolicyStep
from dexgrasp_deploy.control.sensing.policy_image import policy_image
from dexgrasp_deploy.control.sensing.streams import FreshnessConfig
from dexgrasp_deploy.control.telemetry.laps import LapTimer
from dexgrasp_deploy.control.telemetry.latency import Latencies
from dexgrasp_deploy.drivers.base import CameraSample
from dexgrasp_deploy.recording.reading import (
    RecordedEpisode,
    Recording,
    read_images,
    read_recording,
)
from dexgrasp_learner.storage.bundle import Bundle
from dexgrasp_sim.config import ConfigError


@dataclass
class Comparison:
    """Differences of an episode.

    Attributes:
        action: For each step, the largest difference of an element of the action, in [0, 2].
        largest_element: For each step, the name of that element.
        target_rad: For each step, the largest difference of a joint target of the same, recorded
            action: shows another decoder, robot or version.
        without_image: Steps whose image is not in the recording; they saw the one before.
        complete: Whether the episode was recorded from its first step; else the policy's memory
            and the decoder began at another time than on the robot.
    """

    action: list[float] = field(default_factory=list)
    largest_element: list[str] = field(default_factory=list)
    target_rad: list[float] = field(default_factory=list)
    without_image: int = 0
    complete: bool = True

    def as_dict(self, tolerance: float) -> dict[str, Any]:
        """JSON values; `first_difference` is the first step, from 1, whose action differs by more
        than the tolerance, None for none.
        """
        above = [step for step, each in enumerate(self.action, 1) if each > tolerance]
        return {
            "steps": len(self.action),
            "complete": self.complete,
            "without_image": self.without_image,
            "max": max(self.action, default=0.0),
            "mean": float(np.mean(self.action)) if self.action else 0.0,
            "first_difference": above[0] if above else None,
            "steps_that_differ": len(above),
            "max_target_rad": max(self.target_rad, default=0.0),
            "action": self.action,
            "largest_element": self.largest_element,
        }


class Replay:
    """A policy on recorded steps.

    The policy sees what the robot's policy saw, also its last action and decoder: each step is
    compared by itself, and only the policy's memory carries a difference on.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Raises ConfigError where the bundle does not fit its robot."""
        self._manifest = manifest = bundle.manifest
        self._runtime, robot = PolicyRuntime(bundle), manifest.task.load_robot()
        self._observer = PolicyObserver(manifest, robot, FreshnessConfig())
        laps = LapTimer(Latencies(manifest.task.control_dt_s), lambda: 0.0)
        self._policy = PolicyStep(self._runtime, robot, self._observer, lambda: 0.0, laps)

    def run(self, path: Path) -> tuple[Recording, list[Comparison]]:
        """Compares all episodes of a recording.

        Raises:
            ConfigError: It cannot be read, holds no steps, or its actions are of another kind.
            UnfitInput: Its images do not fit the policy.
        """
        recording = read_recording(path)
        if not recording.episodes:
            raise ConfigError(f"{path}: holds no steps of a policy; record while an episode runs")
        size = len(recording.episodes[0].steps[0].action)
        if size != len(self._manifest.action_names):
            raise ConfigError(
                f"{path}: actions have {size} elements, those of bundle "
                f"{self._manifest.bundle_id} have {len(self._manifest.action_names)}"
            )
        images = self._images(recording)
        return recording, [self._compare(each, images) for each in recording.episodes]

    def _images(self, recording: Recording) -> dict[int, NDArray[Any]]:
        """By stamp, as the policy reads them."""
        spec = self._manifest.image
        if spec is None:
            return {}
        task, name = self._manifest.task, spec.name

        def convert(sample: CameraSample) -> NDArray[Any]:
            return policy_image(sample, task.camera, name, task.table.top_m)

        steps = [step for episode in recording.episodes for step in episode.steps]
        stamps = {step.image_ns for step in steps if step.image_ns is not None}
        return read_images(recording.path, name, stamps, convert)

    def _compare(self, episode: RecordedEpisode, images: dict[int, NDArray[Any]]) -> Comparison:
        result = Comparison(complete=episode.start is not None)
        start = episode.start
        at_home = start is not None and np.array_equal(start, self._policy.start)
        self._policy.begin(None if at_home else start, 1)
        names = self._manifest.action_names
        last_action = np.zeros(len(names), np.float32)
        spec, image = self._manifest.image, None
        if spec is not None:
            image = np.zeros(spec.shape, spec.numpy_dtype)
        for step in episode.steps:
            if spec is not None:
                found = None if step.image_ns is None else images.get(step.image_ns)
                result.without_image += found is None
                image = image if found is None else found
            fraction = min(1.0, (step.number - 1) / self._manifest.task.episode_steps)
            decoder = self._policy.decoder
            observation = self._observer.observe(
                step.measured, image, decoder, last_action, fraction
            )
            action, _ = self._runtime.act(observation)
            difference = np.abs(action - step.action)
            result.action.append(float(difference.max()))
            result.largest_element.append(names[int(difference.argmax())])
            last_action = step.action
            target = decoder.decode(torch.from_numpy(last_action).unsqueeze(0))[0]  # [J] rad
            error = np.abs(target.double().numpy() - step.decoded)
            result.target_rad.append(float(error.max()))
        return result
