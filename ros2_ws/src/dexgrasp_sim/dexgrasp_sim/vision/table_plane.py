"""Finds the table in depth images, for cameras that are not quite where they should be."""

import torch
from torch import Tensor

_PLANE_WITHIN = (0.5, 0.25, 0.12)
"""Pixels this near to the plane so far, in the unit of `policy_depth`, count in its next fit."""
_FITTED = 2
"""Every second row and column is enough for a plane."""
_LEAST_SPREAD = 1e-3
"""Keeps a fit to the pixels of one row or column from tilting without limit."""


def level_table(before: Tensor, table_m: Tensor) -> Tensor:
    """Subtracts from each image the plane in which most of its table lies; exportable to ONNX.

    A camera that is turned by one degree, or whose disparity is a quarter of a pixel off, sees the
    table centimetres too high or too low, more on one side: as much as flat objects rise above it.

    Args:
        before: [..., H, W] from `policy_depth`; exact zeros are invalid and stay 0.
        table_m: [H, W] m, depth of the empty table, as `policy_depth` had it.

    Returns:
        [..., H, W] float32, 0 where the table is.
    """
    height, width = before.shape[-2:]
    u = torch.linspace(-1, 1, width, device=before.device).expand(height, width)
    v = torch.linspace(-1, 1, height, device=before.device)[:, None].expand(height, width)
    # of a plane, inverse depth is linear in the image; depth differs by that times its square
    columns = table_m.square()[..., None] * torch.stack((torch.ones_like(u), u, v), -1)
    fitted = before[..., ::_FITTED, ::_FITTED].flatten(-2)  # [..., P]
    plane = _table_plane(fitted, columns[::_FITTED, ::_FITTED].flatten(0, 1))  # [..., 3]
    surface = (plane @ columns.flatten(0, 1).T).unflatten(-1, (height, width))  # [..., H, W]
    return torch.where(before != 0, before - surface, 0.0)


def _table_plane(values: Tensor, columns: Tensor) -> Tensor:
    """Coefficients [..., 3] of `columns` [P, 3] that fit most of `values` [..., P]."""
    x, y, z = columns.unbind(-1)
    products = torch.stack((x * x, x * y, x * z, y * y, y * z, z * z), 1)  # [P, 6]
    valid = values != 0
    plane = torch.zeros_like(values[..., :3])
    for within in _PLANE_WITHIN:
        distance = values - plane @ columns.T  # [..., P]
        weights = (valid & (distance.abs() < within)).to(values.dtype)
        count = weights.sum(-1, keepdim=True).clamp(min=1.0)
        right = (weights * values) @ columns / count  # [..., 3]
        plane = _solved(weights @ products / count, right)
    return plane


def _solved(moments: Tensor, right: Tensor) -> Tensor:
    """The solution [..., 3] of M x = right, by cofactors: ONNX has no solver.

    Args:
        moments: [..., 6] the upper triangle of symmetric M, row by row.
        right: [..., 3].
    """
    a, b, c, d, e, f = moments.unbind(-1)
    a, d, f = a + _LEAST_SPREAD, d + _LEAST_SPREAD, f + _LEAST_SPREAD
    first = torch.stack((d * f - e * e, c * e - b * f, b * e - c * d), -1)
    second = torch.stack((c * e - b * f, a * f - c * c, b * c - a * e), -1)
    third = torch.stack((b * e - c * d, b * c - a * e, a * d - b * b), -1)
    determinant = (first * torch.stack((a, b, c), -1)).sum(-1, keepdim=True)
    inverse = torch.stack((first, second, third), -2) / determinant.unsqueeze(-1)
    return (inverse * right.unsqueeze(-2)).sum(-1)
