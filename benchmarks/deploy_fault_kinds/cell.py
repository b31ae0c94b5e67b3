"""A robot cell in memory: mock devices that can fail, time that passes when somebody waits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.deploy_fault_kinds.case import CommandCount
from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.drivers.base import CameraSample, DriverContext, JointSample
from dexgrasp_deploy.drivers.mock import MockArm, MockCamera, MockHand
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.robot.robot import Robot

JointFault = Callable[[JointSample], JointSample]
ImageFault = Callable[[CameraSample], CameraSample | None]
ROUGH = 1e-9
_GRIP_RAD = 0.1


class SimulatedClock:
    """Monotonic seconds that pass only when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


class ClosingPolicy:
    """Stands where a policy runtime does: closes the hand and lifts it, all the time."""

    def __init__(self, manifest: BundleManifest, clock: SimulatedClock) -> None:
        self.manifest, self.clock, self.stall_s = manifest, clock, 0.0
        wanted = ("finger_closure", "thumb_closure", "palm_z")
        action = [float(name in wanted) for name in manifest.action_names]
        self.action = np.array(action, np.float32)

    def reset(self) -> None:
        """Remembers nothing."""

    def act(self, observations: dict[str, Any]) -> tuple[np.ndarray, None]:
        """The action, after a stall."""
        self.clock.now_s += self.stall_s
        return self.action, None


class FaultyPort:
    """Mock arm, hand and camera, with a thing in the hand, until a fault is put in.

    Attributes:
        arm_fault: Changes what the arm measures.
        hand_fault: The same for the hand.
        image_fault: Changes exposures.
        holds_thing: Whether something is between the fingers.
        blocked: Whether the joints stay where they are.
        count: The commands.
    """

    def __init__(
        self, manifest: BundleManifest, robot: Robot, clock: SimulatedClock, count: CommandCount
    ) -> None:
        context = DriverContext(robot, clock, manifest)
        self._clock, self.count = clock, count
        self.arm, self.hand, self._camera = MockArm(), MockHand(), MockCamera()
        for driver in (self.arm, self.hand, self._camera):
            driver.configure(context, {})
        self._exposure: CameraSample | None = None
        self._open = dict(
            zip(manifest.robot.joint_names, manifest.robot.start_position_rad, strict=True)
        )
        self.arm_fault: JointFault | None = None
        self.hand_fault: JointFault | None = None
        self.image_fault: ImageFault | None = None
        self.holds_thing, self.blocked = True, False
        self._noise = 0

    def receive(self) -> None:
        """Drivers are read when they are asked."""

    def joints(self) -> list[JointSample]:
        """One stream for each device, with the least noise of an encoder."""
        self._noise += 1
        samples = []
        for driver, fault in ((self.arm, self.arm_fault), (self.hand, self.hand_fault)):
            sample = driver.read()
            position = sample.position + ROUGH * self._noise
            sample = replace(sample, position=position, arrival_s=self._clock.now_s)
            samples.append(fault(sample) if fault else sample)
        return samples

    def image(self) -> CameraSample | None:
        """The newest exposure."""
        self._exposure = self._camera.read() or self._exposure
        if self._exposure is None or self.image_fault is None:
            return self._exposure
        return self.image_fault(self._exposure)

    def send(self, positions: dict[str, float]) -> None:
        """Moves at once; fingers stop at a thing."""
        self.count.add(positions)
        if self.blocked:
            return
        moved = dict(positions)
        if self.holds_thing:
            for name in ("index_joint_1", "thumb_joint_2"):
                moved[name] = min(moved[name], self._open[name] + _GRIP_RAD)
        for driver in (self.arm, self.hand):
            driver.write({name: moved[name] for name in driver.joint_names})

    def wait_until(self, time_s: float) -> None:
        """Lets time pass."""
        self._clock.now_s = max(self._clock.now_s, time_s)


class Cell:
    """A control loop on a port that can fail.

    Attributes:
        clock: The time.
        policy: Stands where the policy does.
        port: The devices.
        loop: The control loop.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        robot: Robot,
        config: ControlConfig,
    ) -> None:
        self.clock = SimulatedClock()
        self.policy = ClosingPolicy(manifest, self.clock)
        self.count = CommandCount(robot, manifest.task.command_dt_s)
        self.port = FaultyPort(manifest, robot, self.clock, self.count)
        self.loop = ControlLoop(self.policy, robot, self.port, self.clock, config)  # type: ignore[arg-type]

    def tick(self) -> None:
        """One period of commands."""
        self.loop.tick()
        self.clock.now_s += self.loop.command_dt_s

    def until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Runs until a condition; returns whether it came true in time."""
        end_s = self.clock.now_s + limit_s
        while not condition() and self.clock.now_s < end_s:
            self.tick()
        return condition()
