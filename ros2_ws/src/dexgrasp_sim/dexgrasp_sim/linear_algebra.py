"""Sums, products and solutions whose result for one environment does not depend on the others.

Libraries choose their code, and with it the order of a sum, by the size of a batch and by where in
memory a row lies. Here the order follows from the summed axis alone, and all that the control code
does beside this gives an element the same value wherever it stands: `test_batch_independence.py`
tries each of those operations. So a split of environments over workers changes nothing.
The batch is the last axis, which makes every operation run over long contiguous rows.
On GPUs, whose engines give no equal bits anyway, sums run in any order and few operations.
"""

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad


def keeps_order(values: Tensor) -> bool:
    """Whether sums of these values must run in a fixed order."""
    return not values.is_cuda


def sum_rows(values: Tensor, dim: int = 0) -> Tensor:
    """Sum along an axis of any length, in groups of up to four.

    So few numbers torch adds one after the other, whatever the layout and the size of the batch.
    """
    if not keeps_order(values):
        return values.sum(dim)
    groups, missing = _groups(values.shape[dim])
    if missing:
        values = pad(values, (0, 0) * (values.dim() - 1 - dim) + (0, missing))
    if len(groups) > 1:
        values = values.unflatten(dim, groups)
    for _ in groups:
        values = values.sum(dim)
    return values


@cache
def _groups(length: int) -> tuple[tuple[int, ...], int]:
    """Factors up to four of the next number that has no others, and how far away that is."""
    missing = 0
    while True:
        rest, groups = length + missing, []
        for size in (4, 3, 2):
            while rest % size == 0:
                rest //= size
                groups.append(size)
        if rest == 1:
            return tuple(groups) or (1,), missing
        missing += 1


def sum_products(a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
    """Sum over i of a[i] * b[i], one after the other; needs no room for the products."""
    (first, *others), (factor, *factors) = a, b
    total = first * factor
    for other, factor in zip(others, factors, strict=True):
        total.addcmul_(other, factor)
    return total


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along the first axis, of length 3; torch's own is slow for it on a CPU."""
    if not keeps_order(a):
        return torch.linalg.cross(a, b, dim=0)
    (ax, ay, az), (bx, by, bz) = a.unbind(), b.unbind()
    x = (ay * bz).addcmul_(az, by, value=-1.0)
    y = (az * bx).addcmul_(ax, bz, value=-1.0)
    z = (ax * by).addcmul_(ay, bx, value=-1.0)
    return torch.stack((x, y, z))


def solve(equations: Tensor) -> Tensor:
    """Solves A x = b by Gauss-Jordan elimination.

    Without pivoting, which positive definite matrices do not need.

    Args:
        equations: [K, K + R, N], A symmetric and positive definite, beside it b; overwritten.

    Returns:
        x [K, R, N]; no meaningful numbers where A is not positive definite.
    """
    size = len(equations)
    for pivot in range(size):
        rest = equations[:, pivot + 1 :]
        row, column = rest[pivot], equations[:, pivot : pivot + 1]
        scaled = row / column[pivot]
        rest.addcmul_(column, scaled, value=-1.0)
        row.copy_(scaled)
    return equations[:, size:]
