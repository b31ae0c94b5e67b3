"""Faults put into the control loop: each stream in every way, the policy, the robot, people."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from benchmarks.deploy_fault_kinds.case import Outcome
from benchmarks.deploy_fault_kinds.cell import Cell, SimulatedClock
from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.episode import Reason, State, UnfitInput
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics, JointSample
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import parse_config
from dexgrasp_sim.robot.robot import Robot

_LIMIT_S = 30.0
_REACT_S = 6.0
_REST_S = 1.5
_LIFT_M = 0.05
Inject = Callable[[Cell], None]


@dataclass(frozen=True)
class CoreCase:
    """A fault of the control loop.

    Attributes:
        inject: Puts it in.
        right: Reasons of a right reaction; empty: the episode must go on to its end.
        at: When it comes; IDLE: before the robot starts, which must then be refused.
        config: Overrides of the control configuration.
    """

    inject: Inject
    right: frozenset[Reason] = frozenset()
    at: State = State.GRASP
    config: dict[str, Any] = field(default_factory=dict)


def core_cases() -> dict[str, CoreCase]:
    """All cases by name."""
    return _joint_cases() | _image_cases() | _robot_cases() | _people_cases()


def run_core_case(name: str, case: CoreCase, manifest: BundleManifest, robot: Robot) -> Outcome:
    """Runs one case to its end."""
    torch.set_num_threads(1)
    values = {"approach_speed": 1.0, **case.config}
    cell = Cell(manifest, robot, parse_config(ControlConfig, values, source=name))
    loop = cell.loop

    def outcome(handled: bool, reaction: str, reaction_s: float | None) -> Outcome:
        rounded = None if reaction_s is None else round(reaction_s, 4)
        count = cell.count
        return Outcome(
            name, "core", handled, reaction, rounded, count.commands, count.out_of_limits
        )

    if case.at is State.IDLE:
        case.inject(cell)
        try:
            loop.start()
        except UnfitInput as unfit:
            handled = unfit.reason in case.right and cell.count.commands == 0
            return outcome(handled, f"refused: {loop.refusal}", 0.0)
        return outcome(False, "was not refused", None)
    loop.start(lift_height_m=_LIFT_M)
    reached = cell.until(lambda: _has_come_to(cell, case.at), _LIMIT_S)
    if not reached:
        return outcome(False, f"never came to {case.at.name}: {loop.episode.why}", None)
    begun_s = cell.clock.now_s
    case.inject(cell)
    if not case.right:
        cell.until(lambda: not loop.episode.active, _LIMIT_S)
        good = loop.episode.reason in (Reason.TIME_UP, Reason.AT_HOME)
        return outcome(good, f"went on: {loop.episode.why}", None)
    reacted = cell.until(lambda: loop.episode.reason in case.right, _REACT_S)
    why, reaction_s = _told(cell), cell.clock.now_s - begun_s
    at_rest = loop.episode.active or _comes_to_rest(cell)
    return outcome(reacted and at_rest, why, reaction_s)


def _told(cell: Cell) -> str:
    return f"{cell.loop.episode.state.name}: {cell.loop.episode.why}"


def _has_come_to(cell: Cell, state: State) -> bool:
    """Whether a state is reached; of the policy's, a few steps too, so that the robot moves."""
    there = cell.loop.episode.state is state
    return there and (state is not State.GRASP or cell.loop.progress.steps >= 5)


def _comes_to_rest(cell: Cell) -> bool:
    """Whether the command stands still after the time that braking takes."""
    cell.until(lambda: False, _REST_S)
    position = cell.loop._commander.position
    cell.tick()
    return bool(np.abs(cell.loop._commander.position - position).max() < 1e-6)


def _on_arm(change: Callable[[JointSample, SimulatedClock], JointSample]) -> Inject:
    def inject(cell: Cell) -> None:
        cell.port.arm_fault = lambda sample: change(sample, cell.clock)

    return inject


def _on_image(change: Callable[[CameraSample, SimulatedClock], CameraSample | None]) -> Inject:
    def inject(cell: Cell) -> None:
        cell.port.image_fault = lambda sample: change(sample, cell.clock)

    return inject


def _stopped(kind: str) -> Inject:
    """The stream ends: its newest sample stays the newest."""

    def inject(cell: Cell) -> None:
        if kind == "image":
            last_image = cell.port.image()
            cell.port.image_fault = lambda _: last_image
            return
        arm, hand = cell.port.joints()
        if kind == "arm":
            cell.port.arm_fault = lambda _: arm
        else:
            cell.port.hand_fault = lambda _: hand

    return inject


def _frozen(kind: str) -> Inject:
    """Stamps go on, the data do not."""

    def inject(cell: Cell) -> None:
        if kind == "image":
            image = cell.port.image()
            assert image is not None
            cell.port.image_fault = lambda each: replace(each, image=image.image)
            return
        arm, hand = cell.port.joints()
        last = arm if kind == "arm" else hand

        def same(each: JointSample) -> JointSample:
            return replace(each, position=last.position, velocity=last.velocity)

        if kind == "arm":
            cell.port.arm_fault = same
        else:
            cell.port.hand_fault = same

    return inject


def _value(field_name: str, value: float) -> Inject:
    """One joint measures something impossible."""

    def change(sample: JointSample, clock: SimulatedClock) -> JointSample:
        values = np.array(getattr(sample, field_name))
        values[2] = value
        return replace(sample, **{field_name: values})

    return _on_arm(change)


def _permuted(sample: JointSample, clock: SimulatedClock) -> JointSample:
    return replace(
        sample,
        names=sample.names[::-1],
        position=sample.position[::-1],
        velocity=sample.velocity[::-1],
    )


def _shifted(by_s: float) -> Callable[[Any, SimulatedClock], Any]:
    return lambda sample, clock: replace(sample, stamp_s=sample.stamp_s + by_s)


def _joint_cases() -> dict[str, CoreCase]:
    stale, bad = frozenset({Reason.STALE_JOINTS}), frozenset({Reason.BAD_MEASUREMENT})
    tracking = frozenset({Reason.FROZEN, Reason.TRACKING})
    fewer = _on_arm(lambda s, _: replace(s, position=s.position[:-1]))
    unnamed = _on_arm(lambda s, _: replace(s, names=tuple(f"panda_{n}" for n in s.names)))
    degrees = _on_arm(lambda s, _: replace(s, position=np.rad2deg(s.position)))
    limits = frozenset({Reason.OUT_OF_LIMITS})
    return {
        "arm joints stopped": CoreCase(_stopped("arm"), stale),
        "hand joints stopped": CoreCase(_stopped("hand"), stale),
        "arm joints frozen": CoreCase(_frozen("arm"), tracking),
        "hand joints frozen": CoreCase(
            _frozen("hand"), tracking, State.GRASP, {"freshness": {"hand_travel_rad": 0.2}}
        ),
        "joints delayed by 0.3 s": CoreCase(_on_arm(_shifted(-0.3)), stale),
        "joints with stamps 5 s ahead": CoreCase(
            _on_arm(_shifted(5.0)), frozenset({Reason.STAMP_AHEAD})
        ),
        "joint position NaN": CoreCase(_value("position", np.nan), bad),
        "joint position infinite": CoreCase(_value("position", np.inf), bad),
        "joint velocity NaN": CoreCase(_value("velocity", np.nan), bad),
        "joint far outside its limits": CoreCase(_value("position", 81.0), limits),
        "joints of the wrong number": CoreCase(fewer, bad),
        "joints with other names": CoreCase(unnamed, bad),
        "joints in another order": CoreCase(_on_arm(_permuted)),
        "joints in degrees": CoreCase(degrees, limits, State.IDLE),
    }


def _lens(width: int, height: int, focal_px: float, off_px: float = 0.0) -> Intrinsics:
    lens = Intrinsics.centered(width, height, focal_px)
    return replace(lens, center_px=(lens.center_px[0] + off_px, lens.center_px[1]))


def _image_cases() -> dict[str, CoreCase]:
    stale, scene = frozenset({Reason.STALE_IMAGE}), frozenset({Reason.NOT_THE_SCENE})
    camera, idle = frozenset({Reason.BAD_CAMERA, Reason.NOT_THE_SCENE}), State.IDLE

    def pixels(change: Callable[[np.ndarray], np.ndarray]) -> Inject:
        return _on_image(lambda s, _: replace(s, image=change(s.image)))

    def lens(**changes: Any) -> Inject:
        def change(sample: CameraSample, clock: SimulatedClock) -> CameraSample:
            assert sample.intrinsics is not None
            return replace(sample, intrinsics=replace(sample.intrinsics, **changes))

        return _on_image(change)

    def tenth(image: np.ndarray) -> np.ndarray:
        return (image / 10).astype(np.uint16)

    tiny = _on_image(lambda s, _: replace(s, image=s.image[:3, :4], intrinsics=_lens(4, 3, 5.0)))
    portrait = _on_image(
        lambda s, _: replace(s, image=s.image.T.copy(), intrinsics=_lens(24, 32, 37.0))
    )
    no_lens = _on_image(lambda s, _: replace(s, intrinsics=None))
    stereo = _on_image(lambda s, _: replace(s, image=np.zeros((2, 24, 32, 3), np.uint8)))
    nan_lens = lens(focal_px=(np.nan, np.nan))
    return {
        "images stopped (dead camera)": CoreCase(_stopped("image"), stale),
        "no image ever": CoreCase(_on_image(lambda *_: None), stale, idle),
        "images frozen": CoreCase(_frozen("image"), frozenset({Reason.FROZEN}), State.GRASP),
        "images delayed by 0.5 s": CoreCase(_on_image(_shifted(-0.5)), stale),
        "images with stamps 30 s ahead": CoreCase(
            _on_image(_shifted(30.0)), frozenset({Reason.STAMP_AHEAD})
        ),
        "camera covered": CoreCase(pixels(np.zeros_like), scene),
        "camera blind from the start": CoreCase(pixels(np.zeros_like), scene, idle),
        "depth in another unit": CoreCase(pixels(tenth), scene, idle),
        "image of 4x3 pixels": CoreCase(tiny, camera, idle),
        "portrait image": CoreCase(portrait, camera, idle),
        "no intrinsics": CoreCase(no_lens, camera, idle),
        "intrinsics NaN": CoreCase(nan_lens, camera, idle),
        "principal point off": CoreCase(lens(center_px=(60.0, 11.5)), camera, idle),
        "stereo pair for a depth policy": CoreCase(stereo, camera, idle),
    }


def _attribute(of: str, name: str, value: Any) -> Inject:
    return lambda cell: setattr(getattr(cell, of), name, value)


def _overload(sample: JointSample, clock: SimulatedClock) -> JointSample:
    return replace(sample, effort=np.full(len(sample.names), 1e3))


def _jump(by_s: float) -> Inject:
    """The clock of all devices jumps, the computer's does not."""

    def inject(cell: Cell) -> None:
        for name in ("arm_fault", "hand_fault", "image_fault"):
            setattr(cell.port, name, lambda s: replace(s, stamp_s=s.stamp_s + by_s))

    return inject


def _suspend(cell: Cell) -> None:
    """The computer stands still for 2 s."""
    old = cell.port.joints()
    image = cell.port.image()
    cell.clock.now_s += 2.0
    cell.port.arm_fault, cell.port.hand_fault = (lambda _: old[0]), (lambda _: old[1])
    cell.port.image_fault = lambda _: image


def _robot_cases() -> dict[str, CoreCase]:
    action = frozenset({Reason.BAD_ACTION})
    stale = frozenset({Reason.STALE_JOINTS, Reason.STALE_IMAGE})
    nan, infinite = (np.full(7, value, np.float32) for value in (np.nan, np.inf))
    tight = {"safety": {"max_arm_tracking_rad": 0.05}, "max_tracking_s": 0.4}
    return {
        "action NaN": CoreCase(_attribute("policy", "action", nan), action),
        "action infinite": CoreCase(_attribute("policy", "action", infinite), action),
        "action of 1e6": CoreCase(_attribute("policy", "action", np.full(7, 1e6, np.float32))),
        "policy stalls for 0.1 s": CoreCase(_attribute("policy", "stall_s", 0.1)),
        "computer stands still for 2 s": CoreCase(_suspend, stale),
        "arm blocked": CoreCase(
            _attribute("port", "blocked", True),
            frozenset({Reason.TRACKING, Reason.FROZEN}),
            State.GRASP,
            tight,
        ),
        "arm overloaded": CoreCase(_on_arm(_overload), frozenset({Reason.OVERLOAD})),
        "object slips": CoreCase(
            _attribute("port", "holds_thing", False), frozenset({Reason.DROPPED}), State.LIFT
        ),
        "clocks of the devices jump ahead": CoreCase(_jump(60.0), frozenset({Reason.STAMP_AHEAD})),
        "clocks of the devices jump back": CoreCase(_jump(-60.0), stale),
    }


def _people_cases() -> dict[str, CoreCase]:
    cancelled = frozenset({Reason.CANCELLED})

    def away(cell: Cell) -> None:
        cell.loop.cancel()

    def stop(cell: Cell) -> None:
        cell.loop.hinder(Reason.EMERGENCY_STOP, "pressed")

    def stranger(cell: Cell) -> None:
        cell.loop.hinder(Reason.SECOND_PUBLISHER, "/stranger", latched=False)

    def slow(cell: Cell) -> None:
        cell.loop.speed_scale = 0.1

    cases = {
        f"cancel in {state.name}": CoreCase(
            away, cancelled, state, {"life": {"after": after, "look_s": 0.5}}
        )
        for state, after in (
            (State.HOME, "hold"),
            (State.LOOK, "hold"),
            (State.GRASP, "hold"),
            (State.LIFT, "hold"),
            (State.HAND_OVER, "hand_over"),
            (State.PLACE, "place"),
        )
    }
    return cases | {
        "emergency stop": CoreCase(stop, frozenset({Reason.EMERGENCY_STOP})),
        "emergency stop in PLACE": CoreCase(
            stop, frozenset({Reason.EMERGENCY_STOP}), State.PLACE, {"life": {"after": "place"}}
        ),
        "second commander": CoreCase(stranger, frozenset({Reason.SECOND_PUBLISHER})),
        "speed lowered in mid-run": CoreCase(slow),
    }
