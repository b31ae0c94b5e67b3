"""Bit for bit, what the control code computes for a row does not depend on the other rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig, ActionDecoder
from dexgrasp_sim.linear_algebra import cross, solve, sum_products, sum_rows
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.robot.rotation import (
    angle_of,
    matrix_to_quaternion,
    matrix_to_zyx_euler,
    rotation_vector,
    zyx_euler_to_matrix,
)

ROBOT = load_robot()
ROWS = 37
KINEMATICS = Kinematics(ROBOT, [ROBOT.palm, *ROBOT.fingertips])

pytestmark = pytest.mark.usefixtures("one_thread")


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def rotations(rows):
    return zyx_euler_to_matrix(rows[:, :3])


def positive_definite(rows):
    """[6, 6, N] of rows [N, 36]."""
    root = rows.mT.unflatten(0, (6, 6))
    return (
        sum_products(root[:, :, None].unbind(0), root[:, None].unbind(0)) + torch.eye(6)[..., None]
    )


# functions of rows [N, 36], whose result has the rows first
BATCH_FIRST = {
    "euler": lambda rows: matrix_to_zyx_euler(rotations(rows)),
    "quaternion": lambda rows: matrix_to_quaternion(rotations(rows)),
    "rotation vector": lambda rows: rotation_vector(rotations(rows)),
    "angle": lambda rows: angle_of(rows[:, 0], rows[:, 1]),
    "poses": lambda rows: KINEMATICS.forward(rows[:, :23]).position.flatten(1),
    "orientations": lambda rows: KINEMATICS.forward(rows[:, :23]).rotation.flatten(1),
    "jacobian": lambda rows: KINEMATICS.jacobian(rows[:, :23], ROBOT.palm).flatten(1),
    "tanh": torch.tanh,
    "exp": torch.exp,
    "sine and cosine": lambda rows: torch.cat((rows.sin(), rows.cos()), 1),
    "square root": lambda rows: rows.abs().sqrt(),
}
BATCH_LAST = {
    **{
        f"sum of {k}": lambda rows, k=k: sum_rows(rows.mT[:k]) for k in (1, 2, 3, 5, 7, 23, 31, 36)
    },
    "sum of products": lambda rows: sum_products(rows.mT[:18], rows.mT[18:]),
    "cross product": lambda rows: cross(rows.mT[:3], rows.mT[3:6]),
    "solution": lambda rows: solve(positive_definite(rows), rows.mT[:6, None]).flatten(0, 1),
}
FUNCTIONS = {
    **BATCH_FIRST,
    **{name: lambda rows, f=f: f(rows).movedim(-1, 0) for name, f in BATCH_LAST.items()},
}


@pytest.mark.parametrize("parts", [[1, 36], [5, 32], [18, 19], [1] * ROWS], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_has_the_same_result_in_any_batch(name, parts):
    rows, function = numbers(ROWS, 36), FUNCTIONS[name]
    split = [function(part) for part in rows.split(parts)]
    assert torch.equal(function(rows), torch.cat(split))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_palm_velocities_are_decoded_alike_in_any_batch(parts):
    """With actions that drive the arm against its limits, where equations are solved again."""
    count = sum(parts)
    whole = ActionDecoder(ActionConfig(), ROBOT, count, 0.1)
    pieces = [ActionDecoder(ActionConfig(), ROBOT, part, 0.1) for part in parts]
    for action in 3.0 * numbers(12, count, whole.action_dim):
        split = [p.decode(own) for p, own in zip(pieces, action.split(parts), strict=True)]
        assert torch.equal(whole.decode(action), torch.cat(split))


def test_sums_and_solutions_agree_with_the_library():
    rows = numbers(ROWS, 36).double()
    matrix, right = positive_definite(rows), rows.mT[:6, None]
    expected = torch.linalg.solve(matrix.permute(2, 0, 1), right.permute(2, 0, 1))
    assert torch.allclose(solve(matrix, right).permute(2, 0, 1), expected, atol=1e-9)
    assert torch.allclose(sum_rows(rows, 1), rows.sum(1), atol=1e-12)
    assert torch.allclose(angle_of(rows[0], rows[1]), torch.atan2(rows[0], rows[1]), atol=1e-12)
