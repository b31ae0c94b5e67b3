"""Rigid transforms as [4, 4] float64 matrices; `a_T_b` takes points of frame b to frame a."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Matrix = NDArray[np.float64]


def transform(rotation: ArrayLike, translation: ArrayLike) -> Matrix:
    """The transform [..., 4, 4] of rotations [..., 3, 3] and translations [..., 3] in m."""
    rotation, translation = np.asarray(rotation), np.asarray(translation)
    result = np.zeros((*rotation.shape[:-2], 4, 4))
    result[..., :3, :3] = rotation
    result[..., :3, 3] = translation
    result[..., 3, 3] = 1.0
    return result


def inverse(matrix: Matrix) -> Matrix:
    """Inverses [..., 4, 4] of rigid transforms [..., 4, 4]."""
    turned = np.swapaxes(matrix[..., :3, :3], -1, -2)
    return transform(turned, -(turned @ matrix[..., :3, 3:])[..., 0])


def from_quaternion(xyz_m: ArrayLike, quaternion_wxyz: ArrayLike) -> Matrix:
    """The transform of a position and a quaternion wxyz, which is normalised."""
    return transform(Rotation.from_quat(quaternion_wxyz, scalar_first=True).as_matrix(), xyz_m)


def quaternion_wxyz(matrix: Matrix) -> NDArray[np.float64]:
    """Quaternion wxyz [4] of a transform, w >= 0."""
    rotation = Rotation.from_matrix(matrix[:3, :3])
    return rotation.as_quat(canonical=True, scalar_first=True)


def rotation_vectors(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle [N, 3] in rad of rotation matrices [N, 3, 3]."""
    return Rotation.from_matrix(rotations).as_rotvec()


def moved(matrix: Matrix, change: NDArray[np.float64]) -> Matrix:
    """A transform moved in its parent frame.

    Args:
        matrix: [4, 4].
        change: [6], rotation vector in rad and translation in m, both in the parent frame. The
            rotation leaves the position where it is.
    """
    turn = Rotation.from_rotvec(change[:3]).as_matrix()
    return transform(turn @ matrix[:3, :3], matrix[:3, 3] + change[3:])


def change_between(start: Matrix, end: Matrix) -> NDArray[np.float64]:
    """The `change` [6] for which `moved(start, change)` is `end`."""
    turn = Rotation.from_matrix(end[:3, :3] @ start[:3, :3].T).as_rotvec()
    return np.concatenate((turn, end[:3, 3] - start[:3, 3]))


def distance(first: Matrix, second: Matrix) -> tuple[float, float]:
    """How far two transforms are apart: position in mm, orientation in degrees."""
    change = change_between(first, second)
    return 1e3 * float(np.linalg.norm(change[3:])), float(np.rad2deg(np.linalg.norm(change[:3])))


def mean_rotation(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean [3, 3] of rotation matrices [N, 3, 3]."""
    return Rotation.from_matrix(rotations).mean().as_matrix()
