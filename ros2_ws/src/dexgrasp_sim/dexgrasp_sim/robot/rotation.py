"""Batched rotations: matrices, wxyz quaternions, roll-pitch-yaw and ZYX Euler angles."""

import math

import torch
from torch import Tensor


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of unit wxyz quaternions [..., 4]."""
    w, x, y, z = quaternion.unbind(-1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
    )
    return torch.stack(rows, -2)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Unit wxyz quaternions [..., 4] with w >= 0 of rotation matrices [..., 3, 3].

    Selects per element the one of four equivalent formulas with the largest divisor (Shepperd
    1978), so that no rotation loses precision.
    """
    m = matrix
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    x2, y2, z2 = m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]
    x3, y3, z3 = m[..., 1, 2], m[..., 2, 0], m[..., 0, 1]
    # row i of the symmetric matrix 4 q q' that every rotation matrix determines
    candidates = torch.stack(
        (
            torch.stack((1 + xx + yy + zz, x2 - x3, y2 - y3, z2 - z3), -1),
            torch.stack((x2 - x3, 1 + xx - yy - zz, z2 + z3, y2 + y3), -1),
            torch.stack((y2 - y3, z2 + z3, 1 - xx + yy - zz, x2 + x3), -1),
            torch.stack((z2 - z3, y2 + y3, x2 + x3, 1 - xx - yy + zz), -1),
        ),
        -2,
    )
    largest = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1, keepdim=True)
    row = candidates.take_along_dim(largest.unsqueeze(-1), -2).squeeze(-2)
    quaternion = row / row.square().sum(-1, keepdim=True).sqrt()
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def rpy_to_matrix(rpy: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of URDF roll-pitch-yaw angles [..., 3] in rad.

    Roll, pitch and yaw turn about the fixed x, y and z axis in that order: Rz(y) Ry(p) Rx(r).
    """
    (cr, cp, cy), (sr, sp, sy) = rpy.cos().unbind(-1), rpy.sin().unbind(-1)
    rows = (
        torch.stack((cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr), -1),
        torch.stack((sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr), -1),
        torch.stack((-sp, cp * sr, cp * cr), -1),
    )
    return torch.stack(rows, -2)


def zyx_euler_to_matrix(zyx: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of ZYX Euler angles [..., 3] in rad, stored z, y, x."""
    return rpy_to_matrix(zyx.flip(-1))


def matrix_to_zyx_euler(matrix: Tensor) -> Tensor:
    """ZYX Euler angles [..., 3] in rad, stored z, y, x, of rotation matrices [..., 3, 3].

    z and x lie in (-pi, pi], y in [-pi/2, pi/2]. At y = +-pi/2 only z -+ x is determined.
    """
    y = torch.asin((-matrix[..., 2, 0]).clamp(-1.0, 1.0))
    z = angle_of(matrix[..., 1, 0], matrix[..., 0, 0])
    x = angle_of(matrix[..., 2, 1], matrix[..., 2, 2])
    return torch.stack((z, y, x), -1)


def rotation_vector(matrix: Tensor) -> Tensor:
    """Axis times angle [..., 3] in rad (angle in [0, pi]) of rotation matrices [..., 3, 3]."""
    quaternion = matrix_to_quaternion(matrix)
    imaginary = quaternion[..., 1:]
    sine = imaginary.square().sum(-1, keepdim=True).sqrt()
    half_angle = angle_of(sine, quaternion[..., :1])
    # angle / sin(angle / 2) tends to 2 as the angle goes to 0
    scale = torch.where(sine > 1e-7, 2 * half_angle / sine.clamp_min(1e-7), 2.0)
    return imaginary * scale


def angle_of(y: Tensor, x: Tensor) -> Tensor:
    """Angles in (-pi, pi] of points (x, y), 0 at the origin.

    As torch.atan2, whose last bit depends on where in a tensor an element stands.
    """
    height, width = y.abs(), x.abs()
    longer = torch.maximum(height, width).clamp_min(torch.finfo(y.dtype).tiny)
    angle = torch.atan(torch.minimum(height, width) / longer)
    angle = torch.where(height > width, 0.5 * math.pi - angle, angle)
    return torch.where(x < 0, math.pi - angle, angle).copysign(y)
