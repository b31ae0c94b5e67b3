"""Poses of the board and of a simulated arm at which a camera sees the board."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dexgrasp_deploy.calibration.hand_eye import Setup
from dexgrasp_deploy.calibration.synthetic.rendering import BoardCamera
from dexgrasp_deploy.calibration.transforms import (
    Matrix,
    inverse,
    rotation_vectors,
    transform,
)
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot

_BATCH = 256
_MOST_BATCHES = 100
_CANDIDATES = 6
"""Visible poses for each one that is taken."""
_TURN_RAD = (0.6, 1.2)
"""Largest offset from the posture of the joints of the arm, and of the last one."""


def board_poses(camera: BoardCamera, count: int, seed: int) -> list[Matrix]:
    """camera_T_board [4, 4] of a board that a person shows to every part of the image."""
    generator = np.random.default_rng(seed)
    board, info = camera.board, camera.info
    centre = np.array([*board.size_m, 0.0]) / 2
    poses = []
    while len(poses) < count:
        rotation = Rotation.from_rotvec(generator.uniform([-0.7, -0.7, -0.6], [0.7, 0.7, 0.6]))
        pixel = generator.uniform(0.1, 0.9, 2) * info.size
        ray = np.linalg.inv(info.matrix) @ [*pixel, 1.0]
        middle = ray * generator.uniform(0.3, 0.7)
        pose = transform(rotation.as_matrix(), middle - rotation.apply(centre))
        if camera.sees(pose):
            poses.append(pose)
    return poses


@dataclass(frozen=True, eq=False)
class ArmMotion:
    """An arm at poses in which the camera sees the board.

    Attributes:
        joints_rad: [N, J] true joint positions, in the robot's order.
        camera: Pose of the camera in the base or in the palm.
        boards: [N, 4, 4] camera_T_board.
    """

    joints_rad: NDArray[np.float64]
    camera: Matrix
    boards: Matrix


def arm_motion(
    robot: Robot, camera: BoardCamera, setup: Setup, base_T_camera: Matrix, count: int, seed: int
) -> ArmMotion:
    """Joint positions around the posture `pregrasp`, with the board or the camera in the hand.

    Args:
        robot: The robot.
        camera: Lens and board.
        setup: Eye-to-base: the camera stands at `base_T_camera`, and at `pregrasp` the hand shows
            it the board from 0.40 m. Eye-in-hand: the camera is in front of the palm, and the
            board lies where it is seen from 0.40 m.
        base_T_camera: [4, 4], see `setup`.
        count: N.
        seed: Of the draws.

    Raises:
        RuntimeError: The camera sees the board too rarely.
    """
    generator = np.random.default_rng(seed)
    kinematics = Kinematics(robot, [robot.palm], dtype=torch.float64)
    nominal = np.array(robot.postures["pregrasp"])
    palm = _palm_poses(kinematics, nominal[None])[0]
    seen = transform(
        Rotation.from_euler("xyz", [0.25, -0.2, 0.1]).as_matrix(),
        np.array([0.02, -0.01, 0.40]) - np.array([*camera.board.size_m, 0.0]) / 2,
    )
    if setup is Setup.EYE_TO_BASE:
        mounted, board = base_T_camera, inverse(palm) @ base_T_camera @ seen
    else:
        mounted = transform(
            Rotation.from_euler("xyz", [0.1, 1.2, -0.3]).as_matrix(), [0.05, 0.02, 0.03]
        )
        board = palm @ mounted @ seen
    offset = np.full(len(robot.arm_joints), _TURN_RAD[0])
    offset[-1] = _TURN_RAD[1]
    joints, views = [], []
    for _ in range(_MOST_BATCHES):
        q = np.tile(nominal, (_BATCH, 1))
        q[:, robot.arm] += offset * generator.uniform(-1.0, 1.0, (_BATCH, len(offset)))
        q = np.clip(q, robot.lower, robot.upper)
        palms = _palm_poses(kinematics, q)
        carriers = palms if setup is Setup.EYE_TO_BASE else inverse(palms)
        for position, view in zip(q, inverse(mounted) @ carriers @ board):
            if camera.sees(view):
                joints.append(position)
                views.append(view)
        if len(joints) >= _CANDIDATES * count:
            chosen = most_different(np.array(views)[:, :3, :3], count)
            return ArmMotion(np.array(joints)[chosen], mounted, np.array(views)[chosen])
    raise RuntimeError(f"the board is seen in {len(joints)} of {_MOST_BATCHES * _BATCH} poses")


def most_different(rotations: NDArray[np.float64], count: int) -> list[int]:
    """Indices of `count` rotations of [N, 3, 3] that are far from each other, the first one first.

    Each next one is the farthest from all that were taken.
    """
    chosen = [0]
    nearest = np.full(len(rotations), np.inf)
    while len(chosen) < count:
        turned = rotations[chosen[-1]].T @ rotations
        nearest = np.minimum(nearest, np.linalg.norm(rotation_vectors(turned), axis=1))
        chosen.append(int(nearest.argmax()))
    return chosen


def _palm_poses(kinematics: Kinematics, q: NDArray[np.float64]) -> Matrix:
    poses = kinematics.forward(torch.from_numpy(q))
    return transform(poses.rotation[:, 0].numpy(), poses.position[:, 0].numpy())
