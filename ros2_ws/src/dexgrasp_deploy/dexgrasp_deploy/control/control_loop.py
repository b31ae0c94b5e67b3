"""The control loop of the robot: each period judges, observes, infers, decodes and commands."""

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import numpy as np

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.deadline import Deadline
from dexgrasp_deploy.control.episode import POLICY_ACTS, STALE, Episode, Reason, State, UnfitInput
from dexgrasp_deploy.control.evidence import EvidenceTracker
from dexgrasp_deploy.control.motion.cell import obstacles_of, safety_filter
from dexgrasp_deploy.control.motion.commander import Commander
from dexgrasp_deploy.control.motion.journey import Journey
from dexgrasp_deploy.control.motion.way import WayPlanner
from dexgrasp_deploy.control.observation import PolicyObserver
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime
from dexgrasp_deploy.control.policy_step import PolicyStep
from dexgrasp_deploy.control.port import Progress, RobotPort, Vector
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_deploy.control.telemetry.latency import Stage
from dexgrasp_deploy.control.telemetry.steps import Step, StepReport
from dexgrasp_sim.robot.robot import Robot

_REUSED_PERIODS = 2
"""For so many periods a command goes on while a measurement is late."""


class ControlLoop:
    """Runs a policy on a robot. One thread makes all calls, also from within `wait_until`.

    Attributes:
        task: The training task of the policy.
        config: All that can be set.
        bundle_id: Of the policy.
        control_dt_s: Control period of the policy.
        command_dt_s: Period of `tick`, from one command to the next.
        length: Steps of the present episode.
        lift_height_m: Rise of the hand that counts as lifted in it.
        episode: The state.
        progress: Of the present or the last episode.
        refusal: Why the robot was not started when it was last asked to; "" if it was.
        steps: Measures the policy's steps, and tells a listener.
    """

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
        self.task, self.config = task, config
        self.bundle_id = runtime.manifest.bundle_id
        self.control_dt_s, self.command_dt_s = task.control_dt_s, task.command_dt_s
        self._port, self._clock = port, clock
        self._observer = PolicyObserver(runtime.manifest, robot, config.freshness)
        self.steps = StepReport(self.control_dt_s, clock)
        self._policy = PolicyStep(runtime, robot, self._observer, clock, self.steps.laps)
        self._home = self._policy.start
        safety = safety_filter(task, robot, config.safety)
        self._commander = Commander(robot, port, safety, config, self.steps.laps)
        planner = WayPlanner(robot, obstacles_of(task), safety.clearances)
        self._journey = Journey(planner, self._commander, robot, config, self.command_dt_s, clock)
        self._tracker = EvidenceTracker(robot, task, config.evidence)
        self._wants_policy = self._goes_home = False
        self._fit_s = self._unfit_image_s = -np.inf
        self._hindrances: dict[Reason, str] = {}
        self.length, self.lift_height_m = task.episode_steps, task.success.height_m
        self.episode, self.progress, self.refusal = Episode(clock()), Progress(), ""

    def start(
        self,
        duration_s: float | None = None,
        shadow: bool = False,
        lift_height_m: float | None = None,
    ) -> None:
        """Begins an episode: home, look, grasp.

        All that can be known is checked before anything moves.

        Args:
            duration_s: Time for the policy; None: as in training.
            shadow: Infer, but command nothing; the policy begins where the robot is.
            lift_height_m: Rise of the hand that counts as lifted; None: the task's.

        Raises:
            UnfitInput: It must not begin; the reason is also in `refusal`.
        """
        self._port.receive()
        now_s = self._clock()
        try:
            measured = self._ready(now_s)
            self._observer.begin()
            self._observer.image(self._port.image(), measured.position, now_s)
            self._go_home(Reason.GOAL_ACCEPTED, measured, now_s, shadow)
        except UnfitInput as unfit:
            self._refuse(unfit)
        length = self.task.episode_s if duration_s is None else duration_s
        self.length = max(1, round(length / self.control_dt_s))
        self.lift_height_m = lift_height_m or self.task.success.height_m
        self._wants_policy = True
        self.progress = Progress()

    def go_home(self) -> None:
        """Sends the robot home, after it has put down what it holds; errors as for `start`."""
        self._port.receive()
        now_s = self._clock()
        try:
            measured = self._ready(now_s)
            if self.episode.state is State.HOLD and self._tracker.evidence.closed:
                self._put_down(Reason.SENT_HOME, measured, now_s)
            else:
                self._go_home(Reason.SENT_HOME, measured, now_s)
        except UnfitInput as unfit:
            self._refuse(unfit)
        self._wants_policy = False

    def open_hand(self) -> None:
        """Opens the hand where it is; what was handed over counts as taken.

        Raises:
            UnfitInput: As for `start`.
        """
        self._port.receive()
        now_s = self._clock()
        handing = self.episode.state is State.HAND_OVER
        try:
            samples = self._port.joints()
            measured = self._observer.joints(samples, now_s) if handing else self._ready(now_s)
            reason = Reason.HANDED_OVER if handing else Reason.RELEASED
            self._put_down(reason, measured, now_s, back=False, then_home=handing)
        except UnfitInput as unfit:
            self._refuse(unfit)

    def cancel(self) -> None:
        """Ends a running episode in HOLD; does nothing when none is running."""
        if self.episode.active:
            self._stop(State.HOLD, Reason.CANCELLED, "", self._clock())

    def release(self) -> None:
        """Stops commanding: changes from HOLD or FAULT to IDLE; no effect in other states.

        The next episode begins where the robot is measured then.

        Raises:
            UnfitInput: What caused the fault is still there: `hinder` was not taken back.
        """
        if self.episode.state is State.FAULT:
            self._check_hindrances()
        if self.episode.state in (State.HOLD, State.FAULT):
            self._commander.release()
            self._observer.commanded(None)
            self.episode.enter(State.IDLE, Reason.RELEASED, self._clock())
            self.refusal = ""

    def hinder(self, reason: Reason, detail: str, latched: bool = True) -> None:
        """Stops the robot in a fault and forbids every start until `allow`.

        Args:
            reason: As an emergency stop.
            detail: What happened.
            latched: Also a robot that does not move is in a fault then.
        """
        self._hindrances[reason] = detail
        if not latched and not self.episode.active:
            return
        now_s = self._clock()
        self._stop(State.FAULT, reason, detail, now_s)
        self._commander.brake(now_s)

    def allow(self, reason: Reason) -> None:
        """Takes back `hinder`; a person must still `release` the fault."""
        self._hindrances.pop(reason, None)

    @property
    def shadow(self) -> bool:
        """Whether commands are computed, but do not leave."""
        return self._commander.shadow

    @property
    def speed_scale(self) -> float:
        """Share of the allowed speed, above 0 and at most 1; a change takes effect at once."""
        return self._commander.safety.speed_scale

    @speed_scale.setter
    def speed_scale(self, scale: float) -> None:
        self._commander.safety.speed_scale = scale

    def run(self, stop: Callable[[], bool]) -> None:
        """Calls `tick` at absolute deadlines until `stop()` is true; see `Deadline`."""
        deadline = Deadline(self.command_dt_s, self._clock)
        while True:
            self._port.wait_until(deadline.time_s)
            if stop():
                return
            if self.episode.state in POLICY_ACTS:
                self.steps.late(deadline.late_s)
            self.tick()
            misses = self.progress.deadline_misses + deadline.advance()
            if self.episode.state in POLICY_ACTS:
                self.progress = replace(self.progress, deadline_misses=misses)

    def tick(self) -> None:
        """One period of commands in the present state."""
        self.steps.laps.begin()
        self._port.receive()
        now_s, state = self._clock(), self.episode.state  # nothing received is newer than this
        if state is State.IDLE:
            return
        try:
            measured = self._observer.joints(self._port.joints(), now_s)
            if state is State.HOME:
                self._tick_home(measured, now_s)
            elif state is State.LOOK:
                self._commander.hold(measured, now_s)
                self._look(measured, now_s)
            elif state in POLICY_ACTS:
                self._tick_policy(measured, now_s)
            elif state is State.PLACE:
                self._tick_place(measured, now_s)
            else:
                self._tick_hold(measured, now_s)
            self._fit_s = now_s
        except UnfitInput as unfit:
            self._react(unfit, now_s)
        if self._commander.engaged and not self._commander.shadow:
            self._observer.commanded(self._commander.position)

    def _tick_home(self, measured: Measurement, now_s: float) -> None:
        if not self._journey.advance(measured, now_s):
            return
        if not self._wants_policy:
            self._stop(State.HOLD, Reason.AT_HOME, "", now_s)
            return
        self._unfit_image_s = -np.inf
        self.episode.enter(State.LOOK, Reason.AT_HOME, now_s)
        self._look(measured, now_s)

    def _look(self, measured: Measurement, now_s: float) -> None:
        life, since_s = self.config.life, self.episode.since_s
        try:
            self._observer.image(self._port.image(), measured.position, now_s)
        except UnfitInput as unfit:
            self._unfit_image_s = now_s
            if now_s - since_s > life.look_timeout_s:
                self._stop(State.HOLD, unfit.reason, str(unfit), now_s)
            return
        if now_s - max(self._unfit_image_s, since_s) >= life.look_s:
            self._begin_policy(measured, now_s)

    def _begin_policy(self, measured: Measurement, now_s: float) -> None:
        """Starts the policy where the robot is commanded to be: at home, or in shadow anywhere."""
        shadow = self._commander.shadow
        start = measured.position if shadow else self._home
        self.progress = self._policy.begin(start if shadow else None, self.progress.attempts + 1)
        self._commander.safety.blend_from(start)
        self.steps.begun(start)
        self._tracker.begin(self._home)
        self._observer.begin()
        self.episode.enter(State.GRASP, Reason.START_POSTURE_REACHED, now_s)

    def _tick_policy(self, measured: Measurement, now_s: float) -> None:
        if self._policy.coming:
            self._command(self._policy.coming.popleft(), measured, now_s)
        elif self.progress.steps < self.length:
            self._act(measured, now_s)
        else:  # the last action had its full period, as in training
            self._end_policy(measured, now_s)
            return
        lifting = self._tracker.lifting
        if lifting and self.episode.state is State.GRASP:
            self.episode.enter(State.LIFT, Reason.LIFTED, now_s)
        elif not lifting and self.episode.state is State.LIFT:
            self.episode.enter(State.GRASP, Reason.DROPPED, now_s)

    def _act(self, measured: Measurement, now_s: float) -> None:
        sample = self._port.image() if self._observer.needs_image else None
        self.progress = self._policy.step(measured, sample, self.progress, now_s)
        try:
            self._command(self._policy.coming.popleft(), measured, now_s)
        finally:
            step = Step(now_s, measured, sample, self._policy.target, self._commander.position)
            self.steps.stepped(step, self.progress)

    def _command(self, target: Vector, measured: Measurement, now_s: float) -> None:
        before, seen_m = self._commander.position, self.progress.object_m
        evidence = self._tracker.observe(measured, before, seen_m, now_s)
        self.progress = replace(self.progress, evidence=evidence)
        self.steps.laps.end(Stage.EVIDENCE)
        if self._commander.command(target, measured, now_s).clamped.any():
            clamped = self.progress.clamped_commands + 1
            self.progress = replace(self.progress, clamped_commands=clamped)

    def _end_policy(self, measured: Measurement, now_s: float) -> None:
        evidence, life = self.progress.evidence, self.config.life
        success = evidence.is_grasp(self.lift_height_m)
        self.progress = replace(self.progress, success=success)
        again = not success and self.progress.attempts <= life.retries
        if self._commander.shadow or (not again and (not success or life.after == "hold")):
            self._stop(State.HOLD, Reason.TIME_UP, str(evidence), now_s)
        elif again:
            self._go_home(Reason.TRY_AGAIN, measured, now_s)
        else:
            self._wants_policy = False
            self.episode.enter(State.HAND_OVER, Reason.TIME_UP, now_s, str(evidence))
            if life.after == "place":
                self._put_down(Reason.TIME_UP, measured, now_s)

    def _tick_place(self, measured: Measurement, now_s: float) -> None:
        if not self._journey.advance(measured, now_s):
            return
        self._tracker.begin(self._home)
        if self._goes_home:
            self._go_home(Reason.PUT_DOWN, measured, now_s)
        else:
            self._stop(State.HOLD, Reason.PUT_DOWN, "", now_s)

    def _tick_hold(self, measured: Measurement, now_s: float) -> None:
        if not self._commander.engaged or self._commander.shadow:
            return
        self._commander.hold(measured, now_s)
        evidence = self._tracker.observe(measured, self._commander.position, None, now_s)
        if self.episode.state is State.HAND_OVER:
            if not evidence.closed:
                self._put_down(Reason.HANDED_OVER, measured, now_s, back=False)
            elif now_s - self.episode.since_s > self.config.life.hand_over_s:
                self._put_down(Reason.TIME_UP, measured, now_s)

    def _go_home(
        self, reason: Reason, measured: Measurement, now_s: float, shadow: bool = False
    ) -> None:
        self._commander.engage(measured, shadow)
        self._journey.home(self._home, self.task.table.top_m, now_s)
        self._enter(State.HOME, reason, now_s)

    def _put_down(
        self,
        reason: Reason,
        measured: Measurement,
        now_s: float,
        back: bool = True,
        then_home: bool = True,
    ) -> None:
        """Opens the hand, if wanted back where it closed, and goes home, if that is wanted."""
        self._commander.engage(measured, shadow=False)
        trail = self._tracker.trail(self.config.life.release_m) if back else np.zeros((0, 0))
        self._journey.put_down(trail, self._home, now_s)
        self._goes_home = then_home
        self._enter(State.PLACE, reason, now_s)

    def _enter(self, state: State, reason: Reason, now_s: float) -> None:
        self.episode.enter(state, reason, now_s)
        self._fit_s, self.refusal = now_s, ""

    def _ready(self, now_s: float) -> Measurement:
        """The joints, if the robot may be started."""
        if self.episode.active or self.episode.state is State.FAULT:
            state = f"{self.episode.state.name} ({self.episode.why})"
            raise UnfitInput(Reason.BUSY, f"the robot is in {state}")
        self._check_hindrances()
        return self._observer.joints(self._port.joints(), now_s)

    def _check_hindrances(self) -> None:
        for reason, detail in self._hindrances.items():
            raise UnfitInput(reason, detail)

    def _refuse(self, unfit: UnfitInput) -> NoReturn:
        self.refusal = f"{unfit.reason.value}: {unfit}"
        if self.episode.state is State.IDLE:
            self._commander.release()
        raise unfit

    def _react(self, unfit: UnfitInput, now_s: float) -> None:
        """In stages: goes on for two periods, then slows down and holds; a fault is latched."""
        late_s = now_s - self._fit_s
        stale, active = unfit.reason in STALE, self.episode.active
        if stale and active and late_s <= (_REUSED_PERIODS + 0.5) * self.control_dt_s:
            self._commander.repeat(now_s)
            self.progress = replace(self.progress, reused=self.progress.reused + 1)
            return
        if active:
            holds = stale or unfit.reason is Reason.NO_WAY
            state = State.HOLD if holds else State.FAULT
            self._stop(state, unfit.reason, str(unfit), now_s)
        elif not stale or late_s > self.config.fault_after_s:
            self.episode.fault(unfit.reason, now_s, str(unfit))
        self._commander.brake(now_s)

    def _stop(self, state: State, reason: Reason, detail: str, now_s: float) -> None:
        self._wants_policy = False
        if state is State.FAULT:
            self.episode.fault(reason, now_s, detail)
        else:
            self.episode.enter(state, reason, now_s, detail)
