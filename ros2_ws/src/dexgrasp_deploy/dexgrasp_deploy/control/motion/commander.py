"""The only place from which commands leave: through the safety filter, once in a period."""

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.motion.way import Way
from dexgrasp_deploy.control.port import RobotPort
from dexgrasp_deploy.control.safety import SafeCommand, SafetyFilter
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_deploy.control.telemetry.laps import LapTimer
from dexgrasp_deploy.control.telemetry.latency import Stage
from dexgrasp_sim.robot.robot import Robot

Vector = NDArray[np.float64]

_WAIT_RAD = 0.2
"""A way waits for an arm that is this far behind its command."""


class Commander:
    """Sends commands, and watches whether the robot follows them.

    Attributes:
        safety: The filter.
        engaged: Whether commands are sent at all.
        shadow: Commands are computed, but not sent; always, if the config says so.
    """

    def __init__(
        self,
        robot: Robot,
        port: RobotPort,
        safety: SafetyFilter,
        config: ControlConfig,
        laps: LapTimer,
    ) -> None:
        self.safety, self.engaged, self.shadow = safety, False, config.shadow
        self._always_shadow = config.shadow
        self._robot, self._port = robot, port
        self._laps = laps
        self._measured: Measurement | None = None
        self._target = safety.position
        self._sent_s = -np.inf
        self._cuts = {
            "tracking": _Cut(Reason.TRACKING, config.max_tracking_s),
            "effort": _Cut(Reason.OVERLOAD, config.max_overload_s),
        }

    @property
    def position(self) -> Vector:
        """[J] rad, sent last."""
        return self.safety.position

    def engage(self, measured: Measurement, shadow: bool) -> None:
        """Begins to command, from where the robot stands."""
        shadow = shadow or self._always_shadow
        if not self.engaged or shadow or self.shadow:
            self.safety.reset(measured.position)
        self.engaged, self.shadow = True, shadow
        self._target = self.safety.position
        for cut in self._cuts.values():
            cut.since_s = None

    def release(self) -> None:
        """Ends commanding."""
        self.engaged = False

    def command(self, target: Vector, measured: Measurement, now_s: float) -> SafeCommand:
        """Sends a target.

        Args:
            target: [J] rad.
            measured: The joints now.
            now_s: Monotonic time.

        Returns:
            What was really sent.

        Raises:
            UnfitInput: The robot has not followed its commands, or a joint was overloaded, for
                too long. The command was sent.
        """
        self._target, self._measured = target, measured
        command = self.safety.filter(target, measured.position, measured.effort)
        self._laps.end(Stage.SAFETY)
        self._send(command, now_s)
        if not self.shadow:
            self._watch(command, measured, now_s)
        return command

    def hold(self, measured: Measurement, now_s: float) -> None:
        """Slows down to rest, then stays there; errors as for `command`."""
        if self.safety.at_rest:
            self.command(self.safety.position, measured, now_s)
        else:
            self.brake(now_s)

    def repeat(self, now_s: float) -> None:
        """Goes on to the last target, without a new measurement."""
        if self._measured is not None and self._sent_s < now_s:
            command = self.safety.filter(self._target, self._measured.position)
            self._send(command, now_s)

    def brake(self, now_s: float) -> None:
        """Slows down without any measurement; sends nothing more once at rest."""
        if self.engaged and not self.safety.at_rest and self._sent_s < now_s:
            self._send(self.safety.brake(), now_s)

    def _send(self, command: SafeCommand, now_s: float) -> None:
        self._sent_s = now_s
        if self.engaged and not self.shadow:
            names = self._robot.joint_names
            self._port.send(dict(zip(names, command.position.tolist(), strict=True)))
            self._laps.end(Stage.PUBLISHING)

    def _watch(self, command: SafeCommand, measured: Measurement, now_s: float) -> None:
        for rule, cut in self._cuts.items():
            if cut.lasts(rule in command.reasons, now_s):
                raise UnfitInput(cut.reason, self._describe(rule, measured))

    def _describe(self, rule: str, measured: Measurement) -> str:
        names = self._robot.joint_names
        if rule == "effort":
            limit = np.array([self._robot.joints[name].effort for name in names])
            share = np.nan_to_num(np.abs(measured.effort) / limit)
            joint = int(share.argmax())
            return (
                f"{names[joint]} measures {measured.effort[joint]:.3g} N m, "
                f"{share[joint]:.0%} of its limit"
            )
        lead = np.abs(self.safety.position - measured.position)
        joint = int(lead.argmax())
        return f"{names[joint]} is {lead[joint]:.2f} rad behind its command"


class _Cut:
    """How long a rule of the filter has applied without a break."""

    def __init__(self, reason: Reason, allowed_s: float) -> None:
        self.reason, self._allowed_s = reason, allowed_s
        self.since_s: float | None = None

    def lasts(self, applies: bool, now_s: float) -> bool:
        """Whether it has applied for too long."""
        if not applies:
            self.since_s = None
            return False
        if self.since_s is None:
            self.since_s = now_s
        return now_s - self.since_s > self._allowed_s


class Traveller:
    """Where on a way the robot should be; it waits for an arm that lags."""

    def __init__(self, way: Way, velocity_limit: Vector, now_s: float) -> None:
        """Args:
        way: The way.
        velocity_limit: [J] rad/s, not to be exceeded on it.
        now_s: Monotonic time of the beginning.
        """
        self._way, self._rates, self._time_s = way, way.rates(velocity_limit), 0.0
        self._last_s = self._moved_s = now_s

    @property
    def goal(self) -> Vector:
        """[J] rad, where the way ends."""
        return self._way.path[-1]

    @property
    def ended(self) -> bool:
        """Whether the end of the way has been commanded."""
        return self._time_s >= self._way.duration_s

    def waits_s(self, now_s: float) -> float:
        """For how long the robot has not got on."""
        return now_s - self._moved_s

    def target(
        self, measured: Vector, commanded: Vector, arm: slice, scale: float, now_s: float
    ) -> Vector:
        """[J] rad to command now.

        Args:
            measured: [J] rad.
            commanded: [J] rad, sent last.
            arm: The arm's joints.
            scale: Share of the speed.
            now_s: Monotonic time.
        """
        passed_s, self._last_s = now_s - self._last_s, now_s
        if not self.ended and np.abs(commanded - measured)[arm].max() < _WAIT_RAD:
            step = min(int(self._time_s / self._way.step_s), len(self._rates) - 1)
            self._time_s += self._rates[step] * scale * passed_s
            self._moved_s = now_s
        return self._way.at(self._time_s)
