"""Samples of an arm that a person moves, with a camera that sees the board in its hand."""

from itertools import islice

import numpy as np
import pytest

from dexgrasp_deploy.calibration.board import BoardConfig, Miss
from dexgrasp_deploy.calibration.hand_eye import Setup, calibrate_hand_eye
from dexgrasp_deploy.calibration.recording import Recorder, record
from dexgrasp_deploy.calibration.results.camera_info import unrectified
from dexgrasp_deploy.calibration.samples import palm_pose, read_samples
from dexgrasp_deploy.calibration.synthetic.motions import arm_motion
from dexgrasp_deploy.calibration.synthetic.rendering import BoardCamera, ImageNoise
from dexgrasp_deploy.calibration.transforms import distance, inverse, transform
from dexgrasp_deploy.commands.cli import main
from dexgrasp_deploy.drivers.base import ArmDriver, CameraDriver, CameraSample, JointSample
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.config import GraspConfig

MOVE_S, STAND_S, FRAME_S = 0.4, 1.2, 0.1
MATRIX = np.array([[612.0, 0, 320], [0, 612.0, 240], [0, 0, 1]])


@pytest.fixture(scope="module")
def lens():
    info = unrectified("left", (640, 480), MATRIX, np.zeros(5))
    return BoardCamera(info, BoardConfig(), ImageNoise())


@pytest.fixture(scope="module")
def motion(robot, lens):
    task = GraspConfig()
    at = transform(task.camera.rotation_ros, task.camera.position)
    return arm_motion(robot, lens, Setup.EYE_TO_BASE, at, 8, seed=5)


class GuidedArm(ArmDriver):
    """Goes from pose to pose and stands at each; encoders flicker by less than a milliradian."""

    def __init__(self, robot, motion, clock):
        self.joint_names = robot.arm_joints
        self._poses = motion.joints_rad[:, robot.arm]
        self._clock, self._start_s = clock, clock()

    def configure(self, context, parameters):
        pass

    def write(self, positions):
        raise AssertionError("a recording must not move the arm")

    def position(self):
        place, time_s = divmod(self._clock() - self._start_s, MOVE_S + STAND_S)
        here = self._poses[min(int(place), len(self._poses) - 1)]
        there = self._poses[min(int(place) + 1, len(self._poses) - 1)]
        return here + max(0.0, (time_s - STAND_S) / MOVE_S) * (there - here)

    def read(self):
        flicker = 1e-4 * np.sin(1e3 * self._clock() + np.arange(len(self.joint_names)))
        position = self.position() + flicker
        return JointSample(self.joint_names, position, 0 * position, self._clock())


class CameraBeside(CameraDriver):
    """Draws the board on the palm where the arm is."""

    def __init__(self, robot, lens, motion, arm, clock):
        self._robot, self._lens, self._arm, self._clock = robot, lens, arm, clock
        self._camera = motion.camera
        names = dict(zip(robot.arm_joints, motion.joints_rad[0, robot.arm].tolist()))
        palm = palm_pose(robot, robot.palm, names)
        self._board = inverse(palm) @ motion.camera @ motion.boards[0]
        self._next_s = clock()
        self.covered = False

    def configure(self, context, parameters):
        pass

    def read(self):
        if self._clock() < self._next_s:
            return None
        self._next_s += FRAME_S
        names = dict(zip(self._robot.arm_joints, self._arm.position().tolist()))
        board = inverse(self._camera) @ palm_pose(self._robot, self._robot.palm, names)
        gray = self._lens.draw(board @ self._board)
        if self.covered:
            gray[:] = 0
        image = np.broadcast_to(gray[None, :, :, None], (2, *gray.shape, 3)).copy()
        return CameraSample(image, self._clock())


@pytest.fixture
def rig(robot, lens, motion, clock, tmp_path):
    """Arm, camera, recorder, and how time passes."""
    arm = GuidedArm(robot, motion, clock)
    camera = CameraBeside(robot, lens, motion, arm, clock)
    recorder = Recorder(tmp_path / "samples", Setup.EYE_TO_BASE, robot, BoardConfig())

    def wait(duration_s):
        clock.now_s += duration_s

    return arm, camera, recorder, clock, wait


@pytest.mark.slow
def test_a_sample_is_taken_at_every_pose_where_the_arm_stands(rig, motion, lens, tmp_path):
    taken = list(islice(record(*rig), len(motion.joints_rad)))
    assert [each.count for each in taken] == list(range(1, 9))
    assert all(each.miss is None for each in taken) and taken[-1].spread_deg[1] > 25
    samples = read_samples(tmp_path / "samples", BoardConfig())
    assert len(samples.poses) == 8
    result = calibrate_hand_eye(samples.poses, BoardConfig(), lens.info, samples.setup)
    # encoders that flicker by 0.1 mrad; images taken in motion would be off by centimetres
    assert distance(result.camera, motion.camera)[0] < 3.0 and not result.rejected


def test_a_pose_without_the_board_is_reported_and_not_kept(rig, tmp_path):
    rig[1].covered = True
    taken = next(record(*rig))
    assert taken.miss is Miss.NO_MARKERS and taken.count == 0
    assert list((tmp_path / "samples").iterdir()) == []


def test_a_camera_that_stops_is_noticed(rig):
    rig[1].read = lambda: None
    with pytest.raises(ConfigError, match="no images for 5 s; check the camera's driver"):
        next(record(*rig))


def test_an_arm_that_stops_measuring_is_noticed(rig):
    old = rig[0].read()
    rig[0].read = lambda: old
    with pytest.raises(ConfigError, match="no joint positions for 5 s"):
        next(record(*rig))


def test_depth_images_are_refused(rig):
    depth = np.zeros((48, 64), np.uint16)
    rig[1].read = lambda: CameraSample(depth, rig[3]())
    with pytest.raises(ConfigError, match="configure it for colour or infrared"):
        next(record(*rig))


def test_samples_are_not_overwritten(rig, robot, tmp_path):
    next(record(*rig))
    with pytest.raises(ConfigError, match="holds samples already"):
        Recorder(tmp_path / "samples", Setup.EYE_TO_BASE, robot, BoardConfig())


def test_the_command_refuses_a_driver_that_gives_depth(bundle_folder, tmp_path, capsys):
    arguments = ["calibrate", "record", "--arm", "mock", "--camera", "mock"]
    arguments += ["--setup", "eye-to-base", "--out", str(tmp_path / "samples")]
    assert main(arguments) == 2
    assert "needs a policy bundle" in capsys.readouterr().err
    assert main([*arguments, "--bundle", str(bundle_folder)]) == 2
    assert "configure it for colour or infrared" in capsys.readouterr().err
