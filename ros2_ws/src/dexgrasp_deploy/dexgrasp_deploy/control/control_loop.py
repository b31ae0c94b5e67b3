"""The control loop of the robot: each period observes, infers, decodes, filters and commands."""

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from math import ceil
from typing import Annotated, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.control.episode import Episode, Reason, State
from dexgrasp_deploy.control.observation import FreshnessConfig, PolicyObserver, UnfitInput
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime, predicted_object_position
from dexgrasp_deploy.control.safety import SafetyConfig, SafetyFilter
from dexgrasp_deploy.drivers.base import CameraSample, JointSample
from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.robot.robot import Robot

Positive = Annotated[float, Field(gt=0)]
Vector = NDArray[np.float64]


@dataclass(frozen=True, config=STRICT)
class ControlConfig:
    """How the robot is driven around and during an episode.

    Attributes:
        approach_speed: Share of the URDF velocity limits on the way to the start posture.
        approach_tolerance_rad: The start posture counts as reached within this.
        approach_timeout_s: Longest time beyond the planned motion to reach the start posture.
        max_approach_rad: No arm joint may start further than this from the start posture: the
            motion is a straight line in joint space and does not avoid obstacles.
        max_tracking_s: A fault is raised when commands were limited for this long because the
            robot does not follow them.
        freshness: Largest ages of measurements.
        safety: Limits of commands.
    """

    approach_speed: Annotated[float, Field(gt=0, le=1)] = 0.25
    approach_tolerance_rad: Positive = 0.1
    approach_timeout_s: Positive = 5.0
    max_approach_rad: Positive = 1.0
    max_tracking_s: Positive = 1.0
    freshness: FreshnessConfig = FreshnessConfig()
    safety: SafetyConfig = SafetyConfig()


class RobotPort(Protocol):
    """Source of measurements and sink of commands: topics in a node, drivers in a test."""

    def joints(self) -> JointSample | None:
        """The newest joint measurement."""
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


@plain_dataclass(frozen=True)
class Progress:
    """Progress of an episode; a new object at every step.

    Attributes:
        steps: Actions so far.
        first_s: Monotonic time of the first action.
        last_s: Monotonic time of the newest action.
        deadline_misses: Control periods that ended late.
        clamped_commands: Commands that the safety filter changed.
        inference_s: Duration of the newest policy evaluation.
        observation_age_s: Age of the oldest sample in the newest observation.
        action: [A], the newest action.
        first_object_m: [3] first prediction of the object's position, base frame; None without.
        object_m: [3] the newest such prediction.
    """

    steps: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    deadline_misses: int = 0
    clamped_commands: int = 0
    inference_s: float = 0.0
    observation_age_s: float = 0.0
    action: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    first_object_m: Vector | None = None
    object_m: Vector | None = None

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


class ControlLoop:
    """Runs a policy on a robot. One thread makes all calls, also from within `wait_until`."""

    def __init__(
        self,
        runtime: PolicyRuntime,
        robot: Robot,
        port: RobotPort,
        clock: Callable[[], float],
        config: ControlConfig,
    ) -> None:
        """Raises ConfigError where the policy does not fit the robot."""
        task = runtime.manifest.task
        self.task = task
        self.bundle_id = runtime.manifest.bundle_id
        self.control_dt_s = task.control_dt_s
        self.config = config
        self._runtime = runtime
        self._robot = robot
        self._port = port
        self._clock = clock
        self._observer = PolicyObserver(runtime.manifest, robot, config.freshness)
        self._decoder = make_decoder(
            task.action,
            robot,
            1,
            task.control_dt_s,
            task.table_obstacle,
            difficulty=task.difficulty,
        )
        self._safety = SafetyFilter(robot, config.safety, task.control_dt_s)
        self._arm = robot.arm
        self._shadow = False
        self.length = task.episode_steps
        self._approach: _Approach | None = None
        self._target: Vector = np.zeros(robot.num_joints)
        self._cut_since_s: float | None = None
        self.episode = Episode(clock())
        self.progress = Progress()

    def start(self, duration_s: float | None = None, shadow: bool = False) -> None:
        """Begins an episode: first moves to the start posture, then runs the policy.

        Args:
            duration_s: Time for the policy; None: as in training.
            shadow: Infer, but command nothing; the policy begins where the robot is.

        Raises:
            ValueError: An episode is running, or a fault is not cleared.
            UnfitInput: No fresh joint measurement, or the arm is too far from the start posture.
        """
        now_s = self._clock()
        position, _ = self._observer.joints(self._port.joints(), now_s)
        start = self._decoder.start_position.double().numpy()
        distance = np.abs(position - start)[self._arm].max()
        if distance > self.config.max_approach_rad and not shadow:
            raise UnfitInput(
                Reason.START_POSTURE_TOO_FAR,
                f"an arm joint is {distance:.2f} rad from the start posture, allowed "
                f"{self.config.max_approach_rad}; move the arm closer",
            )
        self.episode.enter(State.APPROACH, Reason.GOAL_ACCEPTED, now_s)
        self._safety.reset(position)
        speed = self.config.approach_speed * self._robot.velocity_limit
        self._approach = _Approach(position, start, speed, now_s)
        self._cut_since_s = None
        self._shadow = shadow
        length = self.task.episode_s if duration_s is None else duration_s
        self.length = max(1, round(length / self.control_dt_s))
        self.progress = Progress()

    def cancel(self) -> None:
        """Ends a running episode in HOLD; does nothing when none is running."""
        if self.episode.active:
            self._hold(Reason.CANCELLED, self._clock())

    def release(self) -> None:
        """Stops commanding: changes from HOLD or FAULT to IDLE; no effect in other states."""
        if self.episode.state in (State.HOLD, State.FAULT):
            self.episode.enter(State.IDLE, Reason.RELEASED, self._clock())

    def run(self, stop: Callable[[], bool]) -> None:
        """Calls `tick` at absolute deadlines until `stop()` is true.

        If a tick ends after the next deadline, the next tick begins at once when it is less than
        half a period late. Otherwise the missed deadlines are skipped, so that two actions never
        follow each other too closely.
        """
        deadline_s = self._clock()
        while True:
            self._port.wait_until(deadline_s)
            if stop():
                return
            self.tick()
            deadline_s += self.control_dt_s
            late = (self._clock() - deadline_s) / self.control_dt_s
            if late > 0:
                deadline_s += int(late + 0.5) * self.control_dt_s
                self._count_misses(ceil(late))

    def tick(self) -> None:
        """One control period in the present state."""
        now_s = self._clock()
        try:
            if self.episode.state is State.APPROACH:
                self._tick_approach(now_s)
            elif self.episode.state is State.RUNNING:
                self._tick_running(now_s)
            elif self.episode.state in (State.HOLD, State.FAULT):
                self._tick_hold(now_s)
        except UnfitInput as unfit:
            self._refuse(unfit.reason, now_s)

    def _tick_approach(self, now_s: float) -> None:
        assert self._approach is not None
        position, _ = self._observer.joints(self._port.joints(), now_s)
        if self._shadow:
            self._begin(now_s, stands_at=position)
            return
        self._command(self._approach.at(now_s), position, now_s)
        if not self.episode.active:
            return
        error = np.abs(position - self._approach.goal).max()
        arrived = self._approach.done(now_s) and error <= self.config.approach_tolerance_rad
        sees = self._observer.image_is_fresh(self._port.image(), now_s)
        if arrived and sees:
            self._begin(now_s)
        elif now_s > self._approach.end_s + self.config.approach_timeout_s:
            if arrived:
                self._hold(Reason.STALE_IMAGE, now_s)
            else:
                self.episode.fault(Reason.APPROACH_TIMEOUT, now_s)

    def _begin(self, now_s: float, stands_at: Vector | None = None) -> None:
        """Starts the policy; `stands_at` is the present position, None at the start posture."""
        self._runtime.reset()
        if stands_at is None:
            self._decoder.reset()
        else:
            try:
                self._decoder.reset(None, torch.from_numpy(stands_at).float().unsqueeze(0))
            except ValueError as error:
                raise UnfitInput(Reason.START_POSTURE_TOO_FAR, str(error)) from None
        action_dim = len(self._runtime.manifest.action_names)
        self.progress = Progress(action=np.zeros(action_dim, np.float32))
        self.episode.enter(State.RUNNING, Reason.START_POSTURE_REACHED, now_s)

    def _tick_running(self, now_s: float) -> None:
        # The last action had its full period before the episode ends, as in training.
        if self.progress.steps >= self.length:
            self._hold(Reason.TIME_UP, now_s)
            return
        joints, image = self._port.joints(), self._port.image()
        position, velocity = self._observer.joints(joints, now_s)
        progress = self.progress
        fraction = min(1.0, progress.steps / self.task.episode_steps)
        observation = self._observer.observe(
            position, velocity, image, self._decoder, progress.action, fraction, now_s
        )
        started_s = self._clock()
        action, prediction = self._runtime.act(observation)
        inference_s = self._clock() - started_s
        if not np.isfinite(action).all():
            raise UnfitInput(Reason.BAD_ACTION, f"action {action}")
        target = self._decoder.decode(torch.from_numpy(action).unsqueeze(0))[0]  # [J] rad
        clamped = self._command(target.double().numpy(), position, now_s)
        object_m = predicted_object_position(self._runtime.manifest, prediction)
        samples = [joints, image] if self._observer.needs_image else [joints]
        self.progress = Progress(
            steps=progress.steps + 1,
            first_s=progress.first_s if progress.steps else now_s,
            last_s=now_s,
            deadline_misses=progress.deadline_misses,
            clamped_commands=progress.clamped_commands + clamped,
            inference_s=inference_s,
            observation_age_s=max(now_s - sample.stamp_s for sample in samples if sample),
            action=action,
            first_object_m=progress.first_object_m if progress.steps else object_m,
            object_m=object_m,
        )

    def _tick_hold(self, now_s: float) -> None:
        if self._shadow:
            return
        position, _ = self._observer.joints(self._port.joints(), now_s)
        self._send(self._safety.filter(self._target, position).position)

    def _command(self, target: Vector, measured: Vector, now_s: float) -> bool:
        """Sends a target through the safety filter; returns whether the filter changed it."""
        command = self._safety.filter(target, measured)
        if not self._shadow:
            self._send(command.position)
        self._target = command.position
        self._watch_tracking("tracking" in command.reasons, now_s)
        return bool(command.clamped.any())

    def _watch_tracking(self, cut: bool, now_s: float) -> None:
        if not cut:
            self._cut_since_s = None
        elif self._cut_since_s is None:
            self._cut_since_s = now_s
        elif now_s - self._cut_since_s > self.config.max_tracking_s and not self._shadow:
            self.episode.fault(Reason.TRACKING, now_s)

    def _send(self, position: Vector) -> None:
        self._port.send(dict(zip(self._robot.joint_names, position.tolist(), strict=True)))

    def _hold(self, reason: Reason, now_s: float) -> None:
        self.episode.enter(State.HOLD, reason, now_s)

    def _refuse(self, reason: Reason, now_s: float) -> None:
        """Ends the episode after an old measurement; raises a fault after a wrong one."""
        if not self.episode.active:
            return
        if reason in (Reason.STALE_JOINTS, Reason.STALE_IMAGE):
            self._hold(reason, now_s)
        else:
            self.episode.fault(reason, now_s)

    def _count_misses(self, number: int) -> None:
        if self.episode.state is State.RUNNING:
            missed = self.progress.deadline_misses + number
            self.progress = replace(self.progress, deadline_misses=missed)


class _Approach:
    """A straight line in joint space with a quintic time profile, at rest at both ends."""

    def __init__(self, start: Vector, goal: Vector, speed: Vector, now_s: float) -> None:
        self.goal = goal
        self._start = start
        self._begin_s = now_s
        # the profile's top speed is 15/8 of its mean speed
        self._duration_s = max(1e-3, float((np.abs(goal - start) / speed).max()) * 15 / 8)

    @property
    def end_s(self) -> float:
        return self._begin_s + self._duration_s

    def at(self, now_s: float) -> Vector:
        x = min(1.0, max(0.0, (now_s - self._begin_s) / self._duration_s))
        return self._start + (self.goal - self._start) * (10 * x**3 - 15 * x**4 + 6 * x**5)

    def done(self, now_s: float) -> bool:
        return now_s >= self.end_s
